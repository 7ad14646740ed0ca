"""Every verb on a Dataset of several nodes, some of which die, drain or are stopped."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import time

import pytest

from cacheop import local
from tests.fakes.command_line import wait_until
from tests.unit.cli.test_terminal import on_terminal
from tests.unit.cli.test_verbs import asked


def test_each_node_is_asked_for_its_share(cacheop):
    record = cacheop.fake(nodes=3)
    found = cacheop.json("load", "--path", "/train/", "--version", "0" * 16)
    assert (found["phase"], found["bytes"], found["files"]) == ("Complete", 1000, 4)
    assert (found["bytes_total"], found["files_total"], found["failed"]) == (1000, 4, [])
    assert [n["node"] for n in found["nodes"]] == ["node-0", "node-1", "node-2"]
    for k in range(3):
        assert asked(record, "load", k) == [
            {"op": "load", "paths": ["train"], "version": "0" * 16, "share": True, "replicas": 1}
        ]


def test_one_node_is_asked_as_ever(cacheop):
    record = cacheop.fake()
    assert cacheop("load").returncode == 0
    assert asked(record, "load") == [{"op": "load", "paths": [], "version": ""}]


def test_replicas(cacheop):
    record = cacheop.fake(nodes=2)
    shown = cacheop("load", "--replicas", "all").stdout
    assert "loaded 8 files, 2.0 KiB (each of 2 copies counted); 0 failed" in shown
    assert asked(record, "load", 1)[0]["replicas"] == "all"
    assert cacheop("load", "--replicas", "2").returncode == 0
    assert asked(record, "load", 1)[1]["replicas"] == 2
    assert "more than the 2 nodes" in cacheop.fails(2, "load", "--replicas", "3")
    for wrong in ("0", "-1", "some", "1.5", ""):
        assert "neither a number of nodes nor all" in cacheop.fails(2, "load", "--replicas", wrong)


def test_files_that_fail_on_two_nodes_are_told_once(cacheop):
    cacheop.fake(nodes=2, failed=[{"path": "big", "error": "HTTP 500"}])
    done = cacheop("load")
    assert done.returncode == 1
    assert "1 failed\n  big: HTTP 500\n" in done.stdout


def test_the_others_load_what_a_node_that_dies_leaves(cacheop):
    record = cacheop.fake(nodes=3, each={1: {"dies": "load"}})
    done = cacheop("load")
    assert done.returncode == 0, done.stderr
    assert "lost node-1: its share goes to the others" in done.stderr
    assert "loaded 4 files, 1000 B; 0 failed" in done.stdout
    assert [len(asked(record, "load", k)) for k in range(3)] == [2, 1, 2]


def test_when_the_last_but_one_dies_the_last_has_it_all(cacheop):
    record = cacheop.fake(nodes=2, each={0: {"dies": "load"}})
    found = json.loads(cacheop("load", "-o", "json").stdout)
    assert (found["phase"], found["bytes"]) == ("Complete", 1000)
    assert [n["node"] for n in found["nodes"]] == ["node-1"]
    assert len(asked(record, "load", 1)) == 2


def test_a_node_that_dies_and_comes_back_loads_its_share_then(cacheop):
    record = cacheop.fake(nodes=3, each={1: {"dies": "load", "returns": True}})
    found = json.loads(cacheop("load", "-o", "json").stdout)
    assert (found["phase"], found["bytes"], len(found["nodes"])) == ("Complete", 1000, 3)
    assert [len(asked(record, "load", k)) for k in range(3)] == [2, 2, 2]


def test_when_all_die_nobody_answers(cacheop):
    cacheop.fake(nodes=2, dies="load")
    assert "went away during load" in cacheop.fails(3, "load")


def test_a_node_that_runs_no_more_is_left_out(cacheop):
    record = cacheop.fake(nodes=3)
    cacheop.processes[2].kill()
    cacheop.processes[2].wait()
    done = cacheop("load")
    assert done.returncode == 0, done.stderr
    assert "not running, and not asked: node-2" in done.stderr
    assert "loaded 4 files" in done.stdout
    assert not asked(record, "load", 2)
    # What must reach every node is not done by halves.
    assert "node-2 not running" in cacheop.fails(3, "suspend")
    assert not asked(record, "suspend")


def test_an_error_of_one_node_ends_the_load_on_all(cacheop):
    no_such = {"load": ["NotFoundError", "no /x", ""]}
    record = cacheop.fake(nodes=3, each={1: {"fail": no_such}, 0: {"stall": True}})
    begin = time.monotonic()
    assert cacheop.fails(4, "load", "--path", "x") == "no /x"
    assert time.monotonic() - begin < 10
    wait_until((record.nodes[0].root / "cancelled").exists)


def test_a_deaf_node_delays_status_once_not_once_for_each(cacheop):
    cacheop.fake(nodes=4)
    for process in cacheop.processes[1:]:
        process.send_signal(signal.SIGSTOP)
    begin = time.monotonic()
    done = cacheop("status")
    assert time.monotonic() - begin < 9
    for process in cacheop.processes[1:]:
        process.send_signal(signal.SIGCONT)
    assert done.returncode == 3
    assert done.stdout.count("did not answer status") == 3


def test_one_node_is_asked_to_refresh(cacheop):
    record = cacheop.fake(nodes=2)
    done = cacheop("refresh")
    assert "version 00112233aabbccdd, a new version: 4 files, 1000 B" in done.stdout
    assert (len(asked(record, "refresh", 0)), len(asked(record, "refresh", 1))) == (1, 0)
    assert len(cacheop.json("refresh")["nodes"]) == 1


def test_suspend_resume_and_evict_reach_every_node(cacheop):
    record = cacheop.fake(nodes=3)
    assert cacheop("suspend").returncode == 0
    assert all(n["suspended"] for n in cacheop.json("status")["nodes"])
    assert cacheop("resume").returncode == 0
    assert not any(n["suspended"] for n in cacheop.json("status")["nodes"])
    assert "evicted 6 files, 1.5 KiB" in cacheop("evict", "--yes").stdout
    assert all(len(asked(record, "evict", k)) == 1 for k in range(3))


def test_who_was_suspended_and_who_was_not(cacheop):
    went = {"suspend": ["WorkerUnavailable", "it went away", ""]}
    cacheop.fake(nodes=3, each={1: {"fail": went}})
    line = cacheop.fails(3, "suspend")
    assert "suspend was done on node-0, node-2 but not on node-1: it went away" in line


def test_status_tells_zone_members_and_what_peers_gave(cacheop):
    cacheop.fake(nodes=2, status={"zone": "zone-7"})
    shown = cacheop("status").stdout
    head = "NODE    ZONE    STATE   SEES    FROM PEERS  TO PEERS  HEDGED  BANS"
    assert f"{head}\nnode-0  zone-7  member  2 of 2  70 B        80 B      9 B     1" in shown
    cacheop.fake("alone")
    assert "ZONE" not in cacheop("status", "alone").stdout


def test_status_tells_who_does_not_hear_of_whom(cacheop):
    alone = {"members": [{"node": "node-0", "live": True}, {"node": "node-1", "live": False}]}
    cacheop.fake(nodes=2, each={0: {"status": alone}})
    shown = cacheop("status").stdout
    assert "node-0 does not hear of node-1, which runs" in shown
    assert "node-1 does not hear" not in shown


def test_drain(cacheop):
    record = cacheop.fake(nodes=2)
    done = cacheop("drain", "demo", "--node", "node-1", "--timeout", "2m")
    assert done.returncode == 0, done.stderr
    assert "drained node-1: handed over 4 chunks, 400 B" in done.stdout
    assert "cacheop down default/demo --node node-1" in done.stdout
    assert asked(record, "drain", 1) == [{"op": "drain", "seconds": 120.0}]
    assert not asked(record, "drain", 0)
    assert "draining" in cacheop("status").stdout
    found = cacheop.json("drain", "--node", "node-0")
    assert (found["node"], found["phase"], found["left"], found["bytes"]) == (
        "node-0", "Drained", 0, 400,
    )  # fmt: skip


def test_a_drain_that_is_late_or_dies(cacheop):
    cacheop.fake(nodes=3, left=3, each={2: {"dies": "drain"}})
    done = cacheop("drain", "--node", "node-1", "--timeout", "1s")
    assert done.returncode == 1
    assert "late: node-1 handed over 1 chunk, 100 B within 1s, 3 chunks not" in done.stdout
    assert "went away during drain" in cacheop.fails(3, "drain", "--node", "node-2")


def test_who_cannot_be_drained(cacheop):
    cacheop.fake(nodes=2)
    line = cacheop.fails(4, "drain", "--node", "node-7")
    assert "has no node node-7. It has node-0, node-1" in line
    assert "Missing option '--node'" in cacheop.fails(2, "drain")
    assert "not a duration" in cacheop.fails(2, "drain", "--node", "node-1", "--timeout", "soon")
    cacheop.processes[1].kill()
    cacheop.processes[1].wait()
    assert "nobody to hand over to" in cacheop.fails(2, "drain", "--node", "node-0")


def test_down_of_one_node_leaves_the_others_and_is_known_as_wanted(cacheop):
    record = cacheop.fake(nodes=3)
    done = cacheop("down", "--node", "node-1")
    assert done.returncode == 0, done.stderr
    assert "stopped node-1 of default/demo\ncache kept: " in done.stdout
    assert cacheop.processes[1].wait(10) == 0
    assert [local.is_alive(node) for node in record.nodes] == [True, False, True]
    status = cacheop("status")
    assert status.returncode == 0
    assert "node-1  stopped" in status.stdout
    assert "end of its log" not in status.stdout
    assert cacheop.json("status")["phase"] == "Ready"
    load = cacheop("load")
    assert load.returncode == 0
    assert "stopped, and not asked: node-1" in load.stderr
    assert "loaded 4 files" in load.stdout
    assert cacheop("suspend").returncode == 0
    assert cacheop("down", "--node", "node-1").returncode == 0  # again: nothing to do
    assert cacheop("down", "--node", "node-0").returncode == 0
    assert "the last node of default/demo that runs" in cacheop.fails(2, "down", "--node", "node-2")
    assert "cannot both" in cacheop.fails(2, "down", "--all", "--node", "node-2")
    assert cacheop("down").returncode == 0
    assert not record.directory.exists()


def test_down_of_one_node_can_purge_its_cache(cacheop):
    record = cacheop.fake(nodes=2)
    assert "--yes" in cacheop.fails(2, "down", "--node", "node-1", "--purge")
    found = cacheop.json("down", "--node", "node-1", "--purge", "--yes")
    assert found["cache"] == [str(record.nodes[1].root)]
    assert found["stopped"] == ["node-1"]
    assert [node.root.exists() for node in record.nodes] == [True, False]


HOT = [{"path": "train/a", "reads": 5, "cached": True}, {"path": "b", "reads": 1, "cached": False}]


def test_top_off_a_terminal_is_one_snapshot(cacheop):
    cacheop.fake(nodes=2, hot=HOT)
    shown = cacheop("top").stdout.splitlines()
    assert shown[0].split()[:5] == ["NODE", "ZONE", "STATE", "CACHED", "LOCAL"]
    assert shown[1].startswith("node-0  zone-0  ready  500 B")
    assert shown[3].startswith("all ")
    assert shown[-2].split() == ["train/a", "10", "2", "nodes"]


def test_top_as_json_is_a_line_a_second(cacheop):
    cacheop.fake(nodes=2, hot=HOT)
    done = cacheop("top", "demo", "-o", "json", "--count", "2")
    assert done.stderr == ""
    first, second = map(json.loads, done.stdout.splitlines())
    assert second["time"] - first["time"] == pytest.approx(1, abs=0.5)
    rate = second["nodes"][0]["read_bytes_per_second"]
    assert rate["local"] == pytest.approx(1000, rel=0.3)
    assert rate["peer"] == pytest.approx(rate["local"] / 5, rel=0.01)
    assert rate["origin"] == 0
    assert second["totals"]["read_bytes_per_second"]["local"] == pytest.approx(2000, rel=0.3)
    assert second["hot"][0] == {"path": "train/a", "reads": 10, "cached_nodes": 2}
    assert [n["state"] for n in second["nodes"]] == ["ready", "ready"]


def test_top_shows_who_is_gone_or_cannot_tell(cacheop):
    cacheop.fake(nodes=3, fail={"hot": ["ProtocolError", "operation 'hot' is not served here", ""]})
    cacheop("drain", "--node", "node-0")
    cacheop("down", "--node", "node-1")
    cacheop.processes[2].kill()
    cacheop.processes[2].wait()
    found = cacheop.json("top")
    assert [n["state"] for n in found["nodes"]] == ["draining", "stopped", "gone"]
    assert found["nodes"][2]["read_bytes_per_second"]["local"] is None
    assert found["hot"] == []


def test_top_of_one_node(cacheop):
    cacheop.fake()
    assert len(cacheop("top").stdout.splitlines()) == 2


def test_top_on_a_terminal(cacheop):
    cacheop.fake(nodes=2, hot=HOT)
    code, shown = on_terminal(cacheop, "top", "--count", "2")
    assert code == 0
    assert shown.count("train/a") >= 2
    assert "^C ends" in shown


def test_top_ends_well_by_interrupt(cacheop):
    cacheop.fake(nodes=2)
    ours, theirs = pty.openpty()
    top = subprocess.Popen(
        cacheop.command("top"),
        env=cacheop.environment | {"TERM": "xterm-256color"},
        stdin=theirs, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while b"node-1" not in shown:
        shown += os.read(ours, 1 << 16)
    top.send_signal(signal.SIGINT)
    assert top.wait(20) == 0
    os.close(ours)
