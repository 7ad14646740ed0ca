"""state.json that is not what we wrote."""

from __future__ import annotations

import pytest

from cache_worker.repair import checked, manifest_checksum, versions_by_age
from cacheop.api.names import index_path, slots_path

DEFAULTS = {"current": "", "kept": [], "suspended": False, "origin_bytes": {}}


def test_known_fields_are_taken_and_others_left_out():
    found = checked({"current": "a", "kept": ["a"], "later": 1}, DEFAULTS)
    assert found == DEFAULTS | {"current": "a", "kept": ["a"]}


@pytest.mark.parametrize(
    "raw", [[], None, "x", {"current": 5}, {"kept": "abc"}, {"kept": [1]}, {"suspended": 1}]
)
def test_anything_else_is_damage(raw):
    with pytest.raises(ValueError, match=r"is |not an object"):
        checked(raw, DEFAULTS)


def test_versions_come_by_age_and_only_whole(tmp_path):
    import os

    (tmp_path / "manifest").mkdir()
    for age, version in enumerate(["bb", "aa", "cc"]):
        (tmp_path / index_path(version)).write_bytes(b"index" + version.encode())
        os.utime(tmp_path / index_path(version), (age, age))
        if version != "cc":
            (tmp_path / slots_path(version)).write_bytes(b"slots")
    assert versions_by_age(tmp_path) == ["bb", "aa"]
    before = manifest_checksum(tmp_path, "aa")
    (tmp_path / slots_path("aa")).write_bytes(b"slotz")
    assert manifest_checksum(tmp_path, "aa") != before
