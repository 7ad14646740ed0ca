from __future__ import annotations

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_worker.holder import records
from cacheop.api.errors import ProtocolError

GOOD = {
    "id": "m3",
    "target": "/mnt/x",
    "mode": "ZeroOpen",
    "why": "because",
    "version": "0af3",
    "rows": 7,
    "device": "0:57",
    "grace_seconds": 600.0,
}


def test_there_and_back():
    assert records.parse(GOOD).as_json() == GOOD


@pytest.mark.parametrize(
    "change",
    [
        *({"id": "../m1"}, {"id": "m"}, {"id": "m²"}, {"id": 3}, {"target": "mnt"}),
        *({"target": "/a\0b"}, {"mode": "Auto"}, {"version": "../x"}, {"version": ""}),
        *({"rows": -1}, {"rows": True}, {"rows": 1 << 40}, {"rows": "7"}, {"device": None}),
        *({"grace_seconds": "x"}, {"why": None}),
    ],
)
def test_what_is_not_whole_is_refused(change):
    with pytest.raises(ProtocolError):
        records.parse({**GOOD, **change})


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_anything_else_is_refused(raw):
    with pytest.raises(ProtocolError):
        records.parse(raw)


@pytest.fixture
def directory(tmp_path):
    root = os.open(tmp_path, os.O_RDONLY)
    fd = records.open_directory(root)
    os.close(root)
    yield fd
    os.close(fd)


def test_saved_loaded_removed(directory, tmp_path):
    mount = records.parse(GOOD)
    records.save(directory, mount)
    records.save(directory, mount)
    assert [found.as_json() for found in records.load(directory)] == [GOOD]
    assert os.listdir(tmp_path / "mounts") == ["m3.json"]
    records.remove(directory, "m3")
    records.remove(directory, "m3")
    assert records.load(directory) == []


def test_what_the_cache_s_user_may_have_put_there_is_passed_over(directory, tmp_path):
    place = tmp_path / "mounts"
    (tmp_path / "good.json").write_text(json.dumps({**GOOD, "id": "m1"}))
    (place / "m1.json").symlink_to(tmp_path / "good.json")
    (place / "m2.json").write_text(json.dumps(GOOD))  # the id of another
    (place / "m4.json").write_text("{")
    (place / "m5.json").write_text("[" * 50_000)
    (place / "m6.json").mkdir()
    os.mkfifo(place / "m7.json")
    (place / "x.json").write_text(json.dumps(GOOD))
    assert records.load(directory) == []


def test_the_directory_is_no_symlink(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "root").mkdir()
    (tmp_path / "root/mounts").symlink_to(tmp_path / "elsewhere")
    root = os.open(tmp_path / "root", os.O_RDONLY)
    with pytest.raises(OSError, match="symbolic links"):
        records.open_directory(root)
    os.close(root)
