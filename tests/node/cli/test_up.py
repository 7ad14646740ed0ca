"""A Dataset's life on this machine with real workers: up, load, status, evict, down."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from cacheop import local
from tests.fakes.command_line import wait_until

pytestmark = pytest.mark.node


def record(cacheop):
    content = json.loads(next(cacheop.run_dir.glob("*.json")).read_text())
    nodes = [
        local.NodeRecord(n["node"], Path(n["root"]), n["pid"], Path(n["config"]))
        for n in content["nodes"]
    ]
    return content, nodes


def assert_gone(cacheop, nodes=()):
    assert [p for p in cacheop.run_dir.iterdir() if p.suffix != ".lock"] == []
    assert not any(local.is_alive(node) for node in nodes)
    assert str(cacheop.tmp_path) not in Path("/proc/self/mountinfo").read_text()


def test_the_life_of_a_dataset(cacheop, stored):
    done = cacheop.process("up", *stored.files)
    assert done.returncode == 0, done.stderr
    assert "3 files, 9.0 MiB" in done.stdout
    assert "cacheop://demo/" in done.stdout
    _, nodes = record(cacheop)
    private = cacheop.run_dir / "default.demo"
    assert private.stat().st_mode & 0o777 == 0o700
    for path in (
        private / "node-0.json",
        private / "secrets/s3/key",
        private / "secrets/s3/secret",
    ):
        assert path.stat().st_mode & 0o777 == 0o600
    assert "already up" in cacheop("up", *stored.files).stderr
    assert cacheop("ls", "demo/train").stdout == "a.bin\nb.bin\n"
    assert "loaded 3 files, 9.0 MiB; 0 failed" in cacheop("load").stdout
    status = cacheop.json("status")
    assert status["cached_bytes"] == status["bytes_total"] == status["origin_bytes"]
    assert {e["cached"] for e in cacheop.json("ls")["entries"]} == {"yes"}
    assert cacheop.json("versions")["nodes"][0]["versions"][0]["current"] is True
    assert cacheop.json("refresh")["nodes"][0]["changed"] is False
    assert "evicted" in cacheop("evict", "--path", "/val", "--yes").stdout
    assert cacheop.json("status")["cached_bytes"] == 10_000
    assert "cache kept" in cacheop("down").stdout
    assert_gone(cacheop, nodes)
    assert nodes[0].root.is_dir()


@pytest.mark.skipif(os.geteuid() != 0 or not Path("/dev/fuse").exists(), reason="needs FUSE")
def test_a_mount_has_the_files_and_goes_with_down(cacheop, stored):
    mount = cacheop.tmp_path / "mnt"
    done = cacheop.process("up", *stored.files, "--mount", mount)
    assert done.returncode == 0, done.stderr
    assert f"below {mount}" in done.stdout
    for key, checksum in stored.checksums.items():
        assert hashlib.sha256((mount / key).read_bytes()).hexdigest() == checksum
    assert "another --mount" in cacheop.fails(2, "up", *stored.files)
    _, nodes = record(cacheop)
    assert cacheop("down").returncode == 0
    assert_gone(cacheop, nodes)


@pytest.mark.skipif(os.geteuid() != 0 or not Path("/dev/fuse").exists(), reason="needs FUSE")
@pytest.mark.parametrize("mode", ["Native", "ZeroOpen", "Passthrough", "Fuse"])
def test_a_mount_mode_is_told_and_a_killed_launcher_is_started_again(cacheop, stored, mode):
    mount = cacheop.tmp_path / "mnt"
    asked = (*stored.files, "--mount", mount, "--mount-mode", mode)
    if mode == "Native":  # wants every file to be here
        assert cacheop("up", *stored.files).returncode == 0
        assert cacheop("load").returncode == 0
        assert cacheop("down").returncode == 0
    done = cacheop.process("up", *asked)
    assert done.returncode == 0, done.stderr
    assert f"below {mount} (mount mode {mode}: asked for)" in done.stdout
    (told,) = cacheop.json("status")["mounts"]
    assert (told["target"], told["mode"], told["why"]) == (str(mount), mode, "asked for")
    assert told["version"] == cacheop.json("status")["version"]
    assert "another --mount-mode" in cacheop.fails(
        2, "up", *stored.files, "--mount", mount, "--mount-mode", "Auto"
    )
    _, nodes = record(cacheop)
    os.kill(nodes[0].pid, signal.SIGKILL)
    wait_until(lambda: not local.is_alive(nodes[0]))
    assert cacheop("up", *asked).returncode == 0
    for key, checksum in stored.checksums.items():
        assert hashlib.sha256((mount / key).read_bytes()).hexdigest() == checksum
    _, nodes = record(cacheop)
    os.kill(nodes[0].pid, signal.SIGKILL)  # `down` cleans up after it, too
    assert cacheop("down").returncode == 0
    assert_gone(cacheop, nodes)


def test_what_the_origin_refuses_is_our_error_and_leaves_nothing(cacheop, stored, monkeypatch):
    monkeypatch.setenv("CACHEOP_SECRET_S3_KEY", "wrong")
    monkeypatch.setenv("CACHEOP_SECRET_S3_SECRET", "wrong")
    assert "403" in cacheop.fails(2, "up", "-f", stored.file)
    assert_gone(cacheop)
    empty = stored.changed(f"{stored.bucket}/", f"{stored.bucket}/nothing/")
    assert "no files below" in cacheop.fails(2, "up", "-f", empty, "-f", stored.secret)
    option = stored.changed('"endpoint_url"', '"bogus": 1, "endpoint_url"')
    assert "bogus" in cacheop.fails(2, "up", "-f", option, "-f", stored.secret)
    assert_gone(cacheop)


def test_an_edited_spec_wants_down_first(cacheop, stored):
    assert cacheop("up", *stored.files).returncode == 0
    changed = stored.changed('"spec": {', '"spec": {"keepVersions": 3, ')
    assert "`cacheop down default/demo` first" in cacheop.fails(
        2, "up", "-f", changed, "-f", stored.secret
    )
    assert "another --nodes" in cacheop.fails(2, "up", *stored.files, "--nodes", "2")


def test_a_cache_that_is_there_comes_up_without_its_origin(cacheop, stored):
    assert cacheop("up", *stored.files).returncode == 0
    assert cacheop("load").returncode == 0
    assert cacheop("down").returncode == 0
    text = stored.file.read_text()
    endpoint = json.loads(text)["spec"]["mounts"][0]["options"]["endpoint_url"]
    away = stored.changed(endpoint, "http://127.0.0.1:1")
    begin = time.monotonic()
    done = cacheop.process("up", "-f", away, "-f", stored.secret)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - begin < 10  # <= 2 s on a machine with nothing else to do
    assert cacheop.json("status")["cached_bytes"] == cacheop.json("status")["bytes_total"]


def test_two_nodes_and_tcp(cacheop, stored):
    done = cacheop("up", *stored.files, "--nodes", "2", "--listen", "127.0.0.1:0")
    assert done.returncode == 0, done.stderr
    found = cacheop.json("status")["nodes"]
    assert len({node["addresses"]["tcp"] for node in found}) == 2
    token = cacheop.run_dir / "default.demo" / "token"
    assert token.stat().st_mode & 0o777 == 0o600
    assert "loaded 3 files" in cacheop("load").stdout


def test_up_starts_again_what_was_killed(cacheop, stored):
    assert cacheop("up", *stored.files, "--nodes", "2").returncode == 0
    _, nodes = record(cacheop)
    os.kill(nodes[1].pid, signal.SIGKILL)
    wait_until(lambda: not local.is_alive(nodes[1]))
    assert cacheop("status").returncode == 3
    done = cacheop("up", *stored.files, "--nodes", "2")
    assert done.returncode == 0, done.stderr
    assert "starting again: node-1" in done.stderr
    assert cacheop("status").returncode == 0
    assert record(cacheop)[1][0] == nodes[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_foreground_stays_until_a_signal(cacheop, stored, number):
    process = subprocess.Popen(
        cacheop.command("up", *stored.files, "--foreground"),
        env=cacheop.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        for line in process.stderr:
            if "Running until" in line:
                break
        _, nodes = record(cacheop)
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    assert_gone(cacheop, nodes)


def test_interrupting_up_leaves_nothing(cacheop, stored):
    # An origin that takes connections and never answers keeps the listing waiting.
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        endpoint = json.loads(stored.file.read_text())["spec"]["mounts"][0]["options"]
        away = stored.changed(endpoint["endpoint_url"], f"http://127.0.0.1:{port}")
        process = subprocess.Popen(
            cacheop.command("up", "-f", away, "-f", stored.secret),
            env=cacheop.environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_until(lambda: list(cacheop.run_dir.glob("*.json")))
        _, nodes = record(cacheop)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=40)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert_gone(cacheop, nodes)


def test_a_listing_that_does_not_move_on_ends_at_the_time_limit(cacheop, stored):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        endpoint = json.loads(stored.file.read_text())["spec"]["mounts"][0]["options"]
        away = stored.changed(endpoint["endpoint_url"], f"http://127.0.0.1:{port}")
        line = cacheop.fails(3, "up", "-f", away, "-f", stored.secret, "--timeout", "3s")
    assert "was not ready after 3s" in line
    assert_gone(cacheop)
