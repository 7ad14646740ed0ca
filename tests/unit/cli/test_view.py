"""What people read, as a function of the protocol's fields."""

from __future__ import annotations

from pathlib import Path

import pytest

from cacheop.cli import view
from cacheop.local import NodeRecord, RunRecord


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (1 << 30, "1.0 GiB"), (None, "-")],
)
def test_size(value, text):
    assert view.size(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0s"), (61, "1m01s"), (3725, "1h02m"), (90000, "1d01h"), (None, "-")]
)
def test_duration(value, text):
    assert view.duration(value) == text


def test_count():
    assert view.count(1, "file") == "1 file"
    assert view.count(20000, "file") == "20,000 files"
    assert view.count(None) == "-"


def test_printable_shows_control_characters_but_keeps_letters():
    assert view.printable("é/日本 x") == "é/日本 x"
    assert view.printable("a\x1b[31m\n") == "a\\x1b[31m\\n"


def record(nodes=1, mount=""):
    made = tuple(NodeRecord(f"node-{k}", Path("/c"), 1, Path("/x")) for k in range(nodes))
    return RunRecord("default", "demo", "d.yaml", made, mount, 1.0, Path("/run"))


def node(**fields):
    return {"node": "node-0", "running": True, "phase": "Ready", "bytes_total": 100} | fields


def test_summary_adds_nodes_and_weighs_hit_ratios_by_what_was_read():
    found = view.summary(
        record(2),
        [
            node(cached_bytes=50, origin_bytes=60, hit_ratio=1.0, read_bytes=300),
            node(cached_bytes=20, origin_bytes=40, hit_ratio=0.0, read_bytes=100),
        ],
    )
    assert found["cached_bytes"] == 70
    assert found["bytes_total"] == 100
    assert found["origin_ratio"] == 1.0
    assert found["hit_ratio"] == 0.75


def test_an_unknown_hit_ratio_stays_unknown():
    assert view.summary(record(), [node(hit_ratio=None)])["hit_ratio"] is None
    assert view.summary(record(), [])["phase"] == "NotRunning"
    assert view.summary(record(), [node(bytes_total=0)])["origin_ratio"] is None


def test_the_phase_of_a_dataset_is_its_worst_node_s():
    assert view.worst_phase([{"phase": "Ready"}, {"phase": "Indexing"}]) == "Indexing"
    assert view.worst_phase([{"phase": "Ready"}, {"phase": "NotRunning"}]) == "NotRunning"


def test_mounts_tell_their_mode():
    mounts = [{"target": "/mnt/x", "mode": "Fuse", "why": "old kernel"}]
    found = view.summary(record(mount="/mnt/x"), [node(mounts=mounts)])
    line = "read it at cacheop://demo/ (fsspec) and below /mnt/x (mount mode Fuse: old kernel)"
    assert view.detail_lines(found)[1] == line


def test_skipped_keys_are_counted_and_named():
    skipped = {"empty part": {"count": 2, "examples": ["a//b", "c//d"]}, "none": {"count": 0}}
    assert view.skipped_lines(skipped) == ["left out 2 keys, empty part: 'a//b', 'c//d'"]


def test_requests_in_total_or_by_operation():
    assert view.requests(3) == 3
    assert view.requests({"get": 2, "list": 1}) == 3
    assert view.requests(None) is None


def test_columns_are_aligned_and_never_cut():
    assert view.columns(("A", "BB"), [("long cell", "x")]) == ["A          BB", "long cell  x"]
    assert view.columns(("A",), []) == ["A"]


def test_versions():
    row = {"version": "v", "files": 1, "bytes": 1, "cached_bytes": 0, "created": 1.7e9}
    assert view.version_row(row | {"current": True, "in_use": True})[-1] == "current, in use"
    assert view.version_row(row | {"current": False, "in_use": False})[-1] == "-"


def test_every_mount_is_told():
    mounts = [
        {"target": "/mnt/x", "mode": "ZeroOpen", "why": "small", "version": "ab"},
        {"target": "/mnt/y", "mode": "Native", "why": "all here", "version": "cd"},
    ]
    found = view.summary(record(mount="/mnt/x"), [node(mounts=mounts)])
    assert found["mounts"] == mounts
    lines = view.detail_lines(found)
    assert any(line.endswith("and below /mnt/x (mount mode ZeroOpen: small)") for line in lines)
    assert "mounted at /mnt/y (mount mode Native: all here), version cd" in lines


def test_copies_count_once_and_each_zone_has_all():
    nodes = [
        {"zone": "a", "cached_bytes": 90, "owned_cached_bytes": 40},
        {"zone": "a", "cached_bytes": 80, "owned_cached_bytes": 50},
        {"zone": "b", "cached_bytes": 70, "owned_cached_bytes": 70},
    ]
    assert view.unique_cached_bytes(nodes) == 90
    assert view.unique_cached_bytes([{"cached_bytes": 7, "owned_cached_bytes": None}]) == 7
    assert view.unique_cached_bytes([]) == 0


def test_a_node_that_is_meant_to_be_stopped_is_no_worse_phase():
    stopped = {"node": "node-1", "running": False, "phase": "Stopped"}
    assert view.summary(record(2), [node(), stopped])["phase"] == "Ready"
    assert view.node_row(stopped)[:2] == ("node-1", "stopped")
    assert view.is_as_wanted(stopped)
    assert not view.is_as_wanted({"node": "node-1", "running": False, "phase": "NotRunning"})
