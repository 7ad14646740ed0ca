import json

import pytest

from cache_worker import report
from cache_worker.mounted import Mounts
from cacheop.api.errors import ProtocolError


def record(root, name="m0", mode="ZeroOpen", **changes):
    whole = {
        "id": name,
        "target": f"/mnt/{name}",
        "mode": mode,
        "why": "asked for",
        "version": "ab",
    }
    (root / "mounts").mkdir(exist_ok=True)
    text = json.dumps({**whole, "rows": 3, "device": "0:57", "grace_seconds": 1.0, **changes})
    (root / "mounts" / f"{name}.json").write_text(text)
    return whole


def test_status_has_the_records_and_what_was_served(tmp_path):
    mounts = Mounts(tmp_path)
    assert mounts.status() == []
    first, second = record(tmp_path), record(tmp_path, "m1", "Native")
    mounts.served("m0", {"READ": 3})
    mounts.served("m0", {"READ": 5, "LOOKUP": 1})  # totals, so the last word counts
    assert mounts.status() == [
        {**first, "requests": {"READ": 5, "LOOKUP": 1}},
        {**second, "requests": {}},
    ]
    with pytest.raises(ProtocolError, match="no mount 'm7'"):
        mounts.served("m7", {"READ": 1})


def test_a_mount_that_is_made_anew_begins_at_nothing(tmp_path):
    mounts = Mounts(tmp_path)
    record(tmp_path)
    mounts.served("m0", {"READ": 3})
    (tmp_path / "mounts" / "m0.json").unlink()
    assert mounts.status() == []
    record(tmp_path)
    assert mounts.status()[0]["requests"] == {}


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"id": "m1"}', "\xff", "[" * 60_000])
def test_a_record_that_is_not_whole_is_passed_over(tmp_path, text):
    record(tmp_path)
    (tmp_path / "mounts" / "m1.json").write_text(text, encoding="latin-1")
    (tmp_path / "mounts" / ".m0.new").write_text("half")
    record(tmp_path, "m2", target=5)
    assert [mount["id"] for mount in Mounts(tmp_path).status()] == ["m0"]


def facts(**changes):
    whole = report.Facts(
        version="ab", bytes_total=10, cached_bytes=10, quota_bytes=100, used_bytes=10,
        suspended=False, indexing=False, index_error=None, origin_error=None, disk_fault="",
        short_of_disk=False, origin_bytes=0, demand_origin_bytes=20, read_bytes=100,
        local_read_bytes=0, unseen_reads=False, pinned_above_quota=frozenset(),
    )  # fmt: skip
    return report.Facts(**{name: getattr(whole, name) for name in report.Facts.__slots__} | changes)


def test_the_hit_ratio_is_unknown_where_only_misses_can_be_seen(tmp_path):
    assert report.hit_ratio(facts()) == 0.8
    assert report.hit_ratio(facts(unseen_reads=True)) is None
    assert report.hit_ratio(facts(unseen_reads=True, local_read_bytes=90)) == 0.8
    mounts = Mounts(tmp_path)
    assert not mounts.are_unseen()
    record(tmp_path)
    record(tmp_path, "m1", "Native")
    assert mounts.are_unseen()
    record(tmp_path, "m2", "Passthrough")
    assert not mounts.are_unseen()


def test_pins_above_the_quota_are_a_condition():
    found = report.conditions(facts(pinned_above_quota=frozenset({"ab"}), short_of_disk=True))[-1]
    assert (found["type"], found["status"], found["reason"]) == ("Healthy", "False", "Pinned")
    assert "version ab" in found["message"]
