"""The run directory."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cacheop import local
from cacheop.api.errors import UserError, WorkerUnavailable


@pytest.fixture
def run_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("CACHEOP_RUN_DIR", str(tmp_path / "run"))
    return local.make_run_dir()


def record(run_dir, name="demo", pid=1):
    node = local.NodeRecord("node-0", Path("/cache/x"), pid, run_dir / "c.json")
    return local.RunRecord("default", name, "d.yaml", (node,), "/mnt/x", 12.5, run_dir)


def test_a_record_comes_back_as_it_was(run_dir):
    local.write(record(run_dir))
    assert local.find("default", "demo") == record(run_dir)
    assert local.find("other", "demo") is None
    raw = json.loads((run_dir / "default.demo.json").read_text())
    assert set(raw) == {"namespace", "name", "file", "nodes", "mount", "started"}
    assert set(raw["nodes"][0]) == {"node", "root", "pid", "config"}


def test_all_records_are_sorted_and_removable(run_dir):
    for name in ("b", "a"):
        local.write(record(run_dir, name))
    assert [r.name for r in local.all_records()] == ["a", "b"]
    local.remove(record(run_dir, "a"))
    local.remove(record(run_dir, "a"))
    assert [r.name for r in local.all_records()] == ["b"]


def test_a_broken_record_is_named(run_dir):
    (run_dir / "default.demo.json").write_text("{")
    with pytest.raises(UserError, match=r"default\.demo\.json"):
        local.all_records()


def test_other_users_find_records_but_not_what_is_private(run_dir):
    os.umask(os.umask(0o077))
    local.write(record(run_dir))
    assert (run_dir / "default.demo.json").stat().st_mode & 0o777 == 0o644


def test_alive_means_that_very_launcher(run_dir):
    config = str(run_dir / "c.json")
    sleeper = [sys.executable, "-c", "import time; time.sleep(60)", config]
    with subprocess.Popen(sleeper) as process:
        node = record(run_dir, pid=process.pid).nodes[0]
        assert local.is_alive(node)
        assert not local.is_alive(record(run_dir, pid=os.getpid()).nodes[0])
        process.kill()
        process.wait()
        assert not local.is_alive(node)


def _hold(run_dir, locked, release):
    with local.locked(run_dir, "default", "demo"):
        locked.set()
        release.wait(20)


def test_one_up_or_down_at_a_time(run_dir):
    context = multiprocessing.get_context("spawn")
    locked, release = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(run_dir, locked, release))
    holder.start()
    try:
        assert locked.wait(20)
        with (
            pytest.raises(WorkerUnavailable, match="at work"),
            local.locked(run_dir, "default", "demo"),
        ):
            pass
        with local.locked(run_dir, "default", "other"):
            pass
    finally:
        release.set()
        holder.join(20)
    with local.locked(run_dir, "default", "demo", wait_seconds=5):
        pass


def test_where_users_look(monkeypatch, tmp_path):
    monkeypatch.delenv("CACHEOP_RUN_DIR", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    expected = (
        [Path("/run/cacheop")]
        if os.geteuid() == 0
        else [tmp_path / "cacheop", Path("/run/cacheop")]
    )
    assert local.run_dirs() == expected


def test_a_run_directory_that_cannot_be_made(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CACHEOP_RUN_DIR", str(tmp_path / "file" / "run"))
    with pytest.raises(UserError, match="CACHEOP_RUN_DIR"):
        local.make_run_dir()
