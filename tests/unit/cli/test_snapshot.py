"""What `top` makes of two statuses."""

from __future__ import annotations

from cacheop.cli import snapshot


def status(node="node-0", **fields):
    return {
        "node": node, "running": True, "phase": "Ready", "pid": 7, "bytes_total": 1000,
        "cached_bytes": 500, "cached_percentage": 50.0, "hit_ratio": 0.5, "read_bytes": 100,
        "origin_bytes": 1000, "origin_ratio": 1.0,
    } | fields  # fmt: skip


def sources(local, peer, origin):
    return {"local": local, "peer": peer, "origin": origin}


def test_rates_are_differences():
    before = [status(read_sources=sources(100, 0, 50)), status("b", read_sources=sources(0, 0, 0))]
    after = [status(read_sources=sources(300, 40, 50)), status("b", read_sources=sources(8, 0, 4))]
    found = snapshot.snapshot(before, after, 2.0, [])
    assert found["nodes"][0]["read_bytes_per_second"] == sources(100, 20, 0)
    assert found["totals"]["read_bytes_per_second"] == sources(104, 20, 2)
    assert found["totals"]["cached_bytes"] == 1000
    assert found["totals"]["origin_ratio"] == 2.0
    assert found["totals"]["hit_ratio"] == 0.5


def test_a_worker_that_began_anew_has_no_rate_yet():
    before, after = status(read_sources=sources(100, 9, 9)), status(read_sources=sources(5, 9, 9))
    unknown = sources(None, None, None)
    assert snapshot.rates(before, after | {"pid": 8}, 1.0) == unknown
    assert snapshot.rates({}, after, 1.0) == unknown
    assert snapshot.rates(status(), status(), 1.0) == unknown  # it does not tell
    assert snapshot.rates(before, after, 1.0)["local"] == 0
    found = snapshot.snapshot([], [status()], 1.0, [])
    assert found["totals"]["read_bytes_per_second"] == unknown
    assert snapshot.rows(found)[0][5:8] == ("-", "-", "-")


def test_states():
    assert snapshot.state(status()) == "ready"
    assert snapshot.state(status(draining=True)) == "draining"
    assert snapshot.state(status(suspended=True)) == "suspended"
    assert snapshot.state(status(phase="Indexing")) == "indexing"
    assert snapshot.state({"node": "b", "running": False, "phase": "NotRunning"}) == "gone"
    assert snapshot.state({"node": "b", "running": False, "phase": "Stopped"}) == "stopped"


def test_hot_files_of_all_nodes_are_one_list():
    hot = [
        [{"path": "a", "reads": 3, "cached": True}, {"path": "b", "reads": 9, "cached": False}],
        [{"path": "a", "reads": 7, "cached": True}, {"path": "c", "reads": 9, "cached": True}],
    ]
    merged = snapshot.merge_hot(hot)
    assert [(f["path"], f["reads"], f["cached_nodes"]) for f in merged] == [
        ("a", 10, 2), ("b", 9, 0), ("c", 9, 1),
    ]  # fmt: skip
    assert len(snapshot.merge_hot(hot, count=2)) == 2


def test_rows():
    dead = {"node": "node-1", "running": False, "phase": "NotRunning"}
    now = status(zone="zone-1", read_sources=sources(2048, 0, 0))
    before = status(read_sources=sources(0, 0, 0))
    found = snapshot.snapshot([before, dead], [now, dead], 1.0, [[{"path": "x/y", "reads": 1}]])
    lines = snapshot.rows(found)
    assert lines[0] == (
        "node-0", "zone-1", "ready", "500 B", "50.0 %", "2.0 KiB/s", "0 B/s", "0 B/s", "50.0 %",
        "1.00 x",
    )  # fmt: skip
    assert lines[1] == ("node-1", "-", "gone", *"-------")
    assert lines[2][:4] == ("all", "-", "-", "500 B")
    assert all(len(line) == len(snapshot.HEAD) for line in lines)
    assert snapshot.hot_rows(found) == [("x/y", "1", "0 nodes")]
    alone = snapshot.snapshot([before], [now], 1.0, [])
    assert len(snapshot.rows(alone)) == 1
