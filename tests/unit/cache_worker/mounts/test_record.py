from __future__ import annotations

from cache_worker.mounts.kernel import WANTED, Init
from cache_worker.mounts.record import Record, load, record_path, save


def test_what_is_saved_is_loaded(tmp_path):
    path = tmp_path / "node-0.mount-0"
    for record in (Record("abc"), Record("abc", Init(41, 1 << 20, WANTED))):
        save(path, record)
        assert load(path) == record
    assert [p.name for p in tmp_path.iterdir()] == ["node-0.mount-0"]


def test_none_or_half_a_record_is_none(tmp_path):
    assert load(tmp_path / "none") is None
    (tmp_path / "half").write_text('{"version": "a')
    assert load(tmp_path / "half") is None
    (tmp_path / "other").write_text('{"version": "a", "init": [1]}')
    assert load(tmp_path / "other") is None


def test_each_mount_has_its_own():
    assert record_path("/run/x/node-1.json", 2) == "/run/x/node-1.mount-2"
