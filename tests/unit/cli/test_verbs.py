"""Every verb as a process, against a control socket that speaks docs/protocol.md."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

from cacheop import local
from tests.fakes.command_line import wait_until
from tests.fakes.stored_version import lay_out


def asked(record: local.RunRecord, op: str, node: int = 0) -> list[dict]:
    path = record.nodes[node].root / "asked"
    lines = path.read_text().splitlines() if path.exists() else []
    return [meta for meta in map(json.loads, lines) if meta["op"] == op]


def test_status_as_json_has_the_protocol_s_fields_and_totals(cacheop):
    cacheop.fake(nodes=2)
    found = cacheop.json("status")
    assert found["dataset"] == "demo"
    assert found["phase"] == "Ready"
    assert found["cached_bytes"] == 1000
    assert found["bytes_total"] == 1000
    assert found["origin_ratio"] == 1.0
    assert found["hit_ratio"] == 0.5
    assert [n["node"] for n in found["nodes"]] == ["node-0", "node-1"]
    assert found["nodes"][0]["origin_requests"] == 3


def test_status_says_what_it_acts_on_and_shows_tables(cacheop):
    cacheop.fake()
    done = cacheop("status", "default/demo")
    assert done.returncode == 0
    assert "Dataset default/demo on this machine, 1 node" in done.stderr
    assert "cacheop://demo/" in done.stdout
    assert "NODE    PHASE" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr


def test_without_a_name_status_lists_all(cacheop):
    cacheop.fake("one")
    cacheop.fake("two", namespace="team")
    done = cacheop("status")
    assert "default/one" in done.stdout
    assert "team/two" in done.stdout
    assert len(cacheop.json("status", "--all")["datasets"]) == 2
    assert "several Datasets run here" in cacheop.fails(2, "status", "-o", "json")
    assert cacheop.json("status", "two.team")["namespace"] == "team"


def test_nothing_runs(cacheop):
    for verb in ("status", "ls", "load", "refresh", "versions", "suspend", "resume", "down"):
        assert "no Dataset runs on this machine" in cacheop.fails(3, verb)
    assert "cacheop up -f" in cacheop.fails(3, "evict", "--yes")


def test_another_name_is_not_found(cacheop):
    cacheop.fake()
    assert "Here runs default/demo" in cacheop.fails(4, "status", "other")
    assert "does not run" in cacheop.fails(4, "load", "demo", "-n", "team")


def test_a_dead_node_is_told_with_its_log(cacheop):
    record = cacheop.fake()
    record.nodes[0].config.with_suffix(".log").write_text("it ran\nand then the disk fell off\n")
    cacheop.close()
    done = cacheop("status")
    assert done.returncode == 3
    assert "not running" in done.stdout
    assert "the disk fell off" in done.stdout
    status = json.loads(cacheop("status", "-o", "json").stdout)
    assert status["nodes"][0]["running"] is False
    assert status["nodes"][0]["log"][-1] == "and then the disk fell off"
    assert "not running" in cacheop.fails(3, "load")


def test_load_shows_what_it_loaded(cacheop):
    record = cacheop.fake()
    done = cacheop("load", "demo", "--path", "/train/", "--path", "val")
    assert done.returncode == 0
    assert "loaded 4 files, 1000 B; 0 failed" in done.stdout
    assert asked(record, "load")[0]["paths"] == ["train", "val"]
    assert cacheop.json("load")["nodes"][0]["phase"] == "Complete"


def test_two_nodes_load_a_share_each(cacheop):
    cacheop.fake(nodes=2)
    assert "loaded 4 files, 1000 B; 0 failed" in cacheop("load").stdout


def test_a_load_with_failed_files_fails(cacheop):
    cacheop.fake(failed=[{"path": "a\x1b[31m", "error": "gone"}])
    done = cacheop("load")
    assert done.returncode == 1
    assert "a\\x1b[31m: gone" in done.stdout


def test_interrupting_a_load_cancels_it_on_every_node(cacheop):
    record = cacheop.fake(nodes=2, stall=True)
    process = subprocess.Popen(
        cacheop.command("load"), env=cacheop.environment, stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: all((n.root / "asked").exists() for n in record.nodes))
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in errors
    wait_until(lambda: all((n.root / "cancelled").exists() for n in record.nodes))


def test_an_error_of_the_worker_is_ours_with_its_exit_code(cacheop):
    fail = {
        "refresh": ["CredentialError", "s3://demo/ answers 403", "Look at the key"],
        "load": ["NotFoundError", "no /x", ""],
        "versions": ["SomethingNew", "well", ""],
    }
    cacheop.fake(fail=fail)
    assert cacheop.fails(2, "refresh") == "s3://demo/ answers 403. Look at the key"
    assert cacheop.fails(4, "load", "--path", "x") == "no /x"
    assert cacheop.fails(1, "versions") == "well"


def test_refresh_tells_the_version_and_what_was_left_out(cacheop):
    cacheop.fake()
    done = cacheop("refresh")
    assert "a new version: 4 files, 1000 B" in done.stdout
    assert "left out 1 key, a part over 255 bytes" in done.stdout


def test_versions(cacheop):
    cacheop.fake()
    assert "00112233aabbccdd  4" in cacheop("versions").stdout
    assert cacheop.json("versions")["nodes"][0]["versions"][0]["current"] is True


def test_evict_wants_yes_off_a_terminal(cacheop):
    record = cacheop.fake()
    assert "--yes" in cacheop.fails(2, "evict")
    assert not (record.nodes[0].root / "asked").exists()
    assert "evicted 2 files, 500 B" in cacheop("evict", "--yes", "--path", "/a").stdout
    assert asked(record, "evict")[0]["paths"] == ["a"]
    shown = cacheop("evict", "--yes", "--path", "/pinned").stdout
    assert "evicted 2 files" in shown
    assert "kept 3 files: mounted in mode Native" in shown
    assert "cannot both" in cacheop.fails(2, "evict", "--path", "a", "--version", "0" * 16)


def test_suspend_and_resume(cacheop):
    cacheop.fake()
    assert cacheop("suspend").returncode == 0
    assert "Ready, suspended" in cacheop("status").stdout
    assert cacheop("resume").returncode == 0
    assert "suspended" not in cacheop("status").stdout


def test_ls_reads_index_and_chunk_table(cacheop):
    root = cacheop.cache / "node-0" / "default" / "demo" / "local"
    store = lay_out(root, {"a.bin": 10, "t/b.bin": 20, "t/c.bin": 20 << 20, "u/d": 5})
    store.fill_file(store.index.resolve("a.bin"))
    store.fill(store.index.resolve("t/c.bin"), 1)
    cacheop.fake(version=store.version)
    assert cacheop("ls").stdout == "a.bin\nt/\nu/\n"
    assert cacheop("ls", "demo/t").stdout == "b.bin\nc.bin\n"
    assert cacheop("ls", "default/demo/t").stdout == "b.bin\nc.bin\n"
    assert cacheop("ls", f"cacheop://demo@{store.version}/t/").stdout == "b.bin\nc.bin\n"
    assert cacheop("ls", "/t/b.bin").stdout == "b.bin\n"
    cached = {e["name"]: e["cached"] for e in cacheop.json("ls")["entries"]}
    assert cached == {"a.bin": "yes", "t": "partly", "u": "no"}
    lines = cacheop("ls", "demo/t", "-l").stdout.splitlines()
    assert lines[1].split()[:2] == ["20", "B"]
    assert lines[2].split()[-2:] == ["partly", "c.bin"]
    assert "no 'x/y'" in cacheop.fails(4, "ls", "demo/x/y")


def test_down_ends_processes_and_forgets_but_keeps_the_cache(cacheop):
    record = cacheop.fake()
    done = cacheop("down")
    assert done.returncode == 0, done.stderr
    assert "cache kept" in done.stdout
    assert "500 B" in done.stdout
    assert not record.directory.exists()
    assert not list(cacheop.run_dir.glob("*.json"))
    assert record.nodes[0].root.exists()
    assert cacheop.processes[0].wait(10) == 0
    cacheop.fails(3, "status")


def test_down_purge_asks_then_deletes(cacheop):
    record = cacheop.fake()
    assert "delete the cache" in cacheop.fails(2, "down", "--purge")
    assert local.is_alive(record.nodes[0])
    assert cacheop.json("down", "demo", "--purge", "--yes")["purged"] is True
    assert not record.nodes[0].root.parent.exists()


def test_down_all(cacheop):
    cacheop.fake("one")
    cacheop.fake("two")
    assert len(cacheop.json("down", "--all")["datasets"]) == 2


def test_down_cleans_up_after_a_killed_launcher(cacheop):
    record = cacheop.fake()
    cacheop.close()
    assert cacheop("down").returncode == 0
    assert not record.directory.exists()


def test_a_pid_that_became_another_process_is_left_alone(cacheop):
    record = cacheop.fake()
    other = subprocess.Popen(["sleep", "60"])
    try:
        path = next(cacheop.run_dir.glob("*.json"))
        content = json.loads(path.read_text())
        content["nodes"][0]["pid"] = other.pid
        path.write_text(json.dumps(content))
        assert cacheop("down").returncode == 0
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
    assert Path(record.nodes[0].root).exists()
