"""Several real workers on this machine as one cache: up, load, drain, lose one, top, Redis."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import time

import pytest

from cacheop import local
from cacheop.client.filesystem import CacheopFileSystem
from tests.fakes.command_line import wait_until
from tests.fakes.redis_server import ADMIN_PASSWORD, MISSING, SERVER, RedisServer
from tests.node.cli.test_up import assert_gone, record

pytestmark = pytest.mark.node

FILES, FILE_BYTES = 48, 1 << 20


@pytest.fixture
def many(stored, s3):
    """`stored` with 48 MiB more, and a limit that makes loading them take some seconds."""
    for k in range(FILES):
        body = os.urandom(FILE_BYTES)
        s3.http.put(stored.bucket, f"many/{k:02}", body)
        stored.checksums[f"many/{k:02}"] = hashlib.sha256(body).hexdigest()
    limit = '"spec": {"prefetch": {"maxOriginBytesPerSecond": "12Mi"}, '
    path = stored.changed('"spec": {', limit)
    return ("-f", path, "-f", stored.secret)


def configs(cacheop):
    directory = cacheop.run_dir / "default.demo"
    return [json.loads(path.read_text()) for path in sorted(directory.glob("node-*.json"))]


def checked(cacheop, stored, monkeypatch, seconds=0.0):
    """Everything is read, right, as a client here does; for `seconds`, at least once."""
    monkeypatch.setenv("CACHEOP_RUN_DIR", str(cacheop.run_dir))
    files = CacheopFileSystem(skip_instance_cache=True)
    end = time.monotonic() + seconds
    while True:
        found = {
            key: hashlib.sha256(files.cat_file(f"demo/{key}")).hexdigest()
            for key in stored.checksums
        }
        assert found == stored.checksums
        if time.monotonic() >= end:
            return


def all_see_all(cacheop, nodes):
    def seen():
        told = cacheop.json("status")["nodes"]
        return all(sum(m["live"] for m in n.get("members", ())) == nodes for n in told)

    wait_until(seen)


def test_the_nodes_are_one_cache(cacheop, stored, monkeypatch):
    done = cacheop("up", *stored.files, "--nodes", "3")
    assert done.returncode == 0, done.stderr
    all_see_all(cacheop, 3)
    assert "loaded 3 files, 9.0 MiB; 0 failed" in cacheop("load").stdout
    checked(cacheop, stored, monkeypatch)
    status = cacheop.json("status")
    assert status["origin_bytes"] == status["bytes_total"]
    assert len({n["version"] for n in status["nodes"]}) == 1
    assert sum(n["peer"]["in_bytes"] for n in status["nodes"]) > 0
    shown = cacheop("status").stdout
    assert shown.count("3 of 3") == 3
    assert "does not hear" not in shown
    changed = cacheop.json("refresh")["nodes"]
    assert [answer["changed"] for answer in changed] == [False]
    assert cacheop("suspend").returncode == 0
    assert all(n["suspended"] for n in cacheop.json("status")["nodes"])
    assert cacheop("resume").returncode == 0
    assert "evicted" in cacheop("evict", "--yes").stdout
    assert cacheop.json("status")["cached_bytes"] == 0
    _, nodes = record(cacheop)
    assert cacheop("down").returncode == 0
    assert_gone(cacheop, nodes)


def test_zones_each_have_all_bytes_and_are_compared_by_up(cacheop, stored):
    done = cacheop("up", *stored.files, "--nodes", "4", "--zones", "2")
    assert done.returncode == 0, done.stderr
    assert [c["zone"] for c in configs(cacheop)] == ["zone-0", "zone-1", "zone-0", "zone-1"]
    token = cacheop.run_dir / "default.demo" / "token"
    assert {c["token_file"] for c in configs(cacheop)} == {str(token)}
    assert token.stat().st_mode & 0o777 == 0o600
    all_see_all(cacheop, 4)
    assert "loaded 6 files, 18.0 MiB (each of 2 copies counted)" in cacheop("load").stdout
    status = cacheop.json("status")
    assert status["origin_bytes"] == 2 * status["bytes_total"]
    assert "already up with another --zones" in cacheop.fails(
        2, "up", *stored.files, "--nodes", "4"
    )
    assert "already up" in cacheop("up", *stored.files, "--nodes", "4", "--zones", "2").stderr
    assert "more than --nodes" in cacheop.fails(2, "up", *stored.files, "--zones", "2")


def test_copies_on_all_nodes(cacheop, stored):
    assert cacheop("up", *stored.files, "--nodes", "2").returncode == 0
    all_see_all(cacheop, 2)
    assert cacheop("load", "--replicas", "all").returncode == 0
    status = cacheop.json("status")
    assert [n["cached_percentage"] for n in status["nodes"]] == [100.0, 100.0]
    assert status["origin_bytes"] == status["bytes_total"]


@pytest.mark.parametrize("what", ["launcher", "worker"])
def test_a_node_lost_in_a_load_costs_nothing_but_time(cacheop, stored, many, what, monkeypatch):
    assert cacheop("up", *many, "--nodes", "3").returncode == 0
    all_see_all(cacheop, 3)
    load = subprocess.Popen(
        cacheop.command("load", "-o", "json"),
        env=cacheop.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: cacheop.json("status")["cached_bytes"] > 4 << 20)
    _, nodes = record(cacheop)
    pid = nodes[1].pid if what == "launcher" else cacheop.json("status")["nodes"][1]["pid"]
    os.kill(pid, signal.SIGKILL)
    told, errors = load.communicate(timeout=90)
    assert load.returncode == 0, told + errors
    found = json.loads(told)
    assert (found["phase"], found["failed"]) == ("Complete", [])
    assert found["files"] == FILES + 3
    assert found["bytes"] == found["bytes_total"] == FILES * FILE_BYTES + (9 << 20) + 10_000
    assert len(found["nodes"]) == (2 if what == "launcher" else 3)
    checked(cacheop, stored, monkeypatch)
    ports = [c["peers"] for c in configs(cacheop)]
    assert cacheop("up", *many, "--nodes", "3").returncode == 0
    assert [c["peers"] for c in configs(cacheop)] == ports
    all_see_all(cacheop, 3)


def test_a_drained_node_can_go_and_come_back(cacheop, stored, many, monkeypatch):
    assert cacheop("up", *many, "--nodes", "3").returncode == 0
    all_see_all(cacheop, 3)
    assert cacheop("load").returncode == 0
    before = cacheop.json("status")["origin_bytes"]
    drained = cacheop.json("drain", "--node", "node-1", "--timeout", "60s")
    assert (drained["phase"], drained["left"]) == ("Drained", 0)
    assert drained["chunks"] == drained["chunks_total"] > 0
    assert {n["node"]: n["draining"] for n in cacheop.json("status")["nodes"]} == {
        "node-0": False, "node-1": True, "node-2": False,
    }  # fmt: skip
    assert cacheop("down", "--node", "node-1").returncode == 0
    assert cacheop("status").returncode == 0
    checked(cacheop, stored, monkeypatch)
    left = [n for n in cacheop.json("status")["nodes"] if n["running"]]
    assert sum(n["origin_bytes"] for n in left) <= before, "nothing was read from the origin again"
    done = cacheop("up", *many, "--nodes", "3")
    assert done.returncode == 0, done.stderr
    assert "starting again: node-1" in done.stderr
    all_see_all(cacheop, 3)
    assert not any(n["draining"] for n in cacheop.json("status")["nodes"])
    assert cacheop("load").returncode == 0
    checked(cacheop, stored, monkeypatch)


def test_top_tells_where_reads_come_from(cacheop, stored, many, monkeypatch):
    assert cacheop("up", *many, "--nodes", "2").returncode == 0
    all_see_all(cacheop, 2)
    assert cacheop("load").returncode == 0
    top = subprocess.Popen(
        cacheop.command("top", "-o", "json", "--count", "6"),
        env=cacheop.environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    first = top.stdout.readline()
    checked(cacheop, stored, monkeypatch, seconds=2.5)  # readers tell once a second what they read
    told, _ = top.communicate(timeout=30)
    found = [json.loads(line) for line in (first + told).splitlines()]
    assert len(found) == 6
    assert [n["state"] for n in found[-1]["nodes"]] == ["ready", "ready"]
    rates = [one["nodes"][0]["read_bytes_per_second"] for one in found]
    assert max(r["peer"] for r in rates) > 0
    assert max(r["local"] for r in rates) > 0
    assert sum(r["origin"] for r in rates) == 0
    assert found[-1]["hot"]


@pytest.fixture
def redis(tmp_path):
    if SERVER is None:
        pytest.skip(MISSING)
    (tmp_path / "redis").mkdir()
    server = RedisServer(tmp_path / "redis").start()
    yield server
    server.close()


def test_nodes_meet_in_a_redis_as_a_user_of_their_own(cacheop, stored, redis, monkeypatch):
    password = ADMIN_PASSWORD.replace(" ", "%20").replace("'", "%27")
    url = f"redis://:{password}@127.0.0.1:{redis.port}/2"
    monkeypatch.setenv("CACHEOP_REDIS", url)
    done = cacheop("up", *stored.files, "--nodes", "3")
    assert done.returncode == 0, done.stderr
    all_see_all(cacheop, 3)
    private = cacheop.run_dir / "default.demo"
    for path in private.glob("*.json"):
        assert ADMIN_PASSWORD not in path.read_text()
    for name in ("redis-password", "redis-admin-password"):
        assert (private / name).stat().st_mode & 0o777 == 0o600
    assert (private / "redis-admin-password").read_text().strip() == ADMIN_PASSWORD
    own = (private / "redis-password").read_text().strip()
    as_dataset = {"user": "cacheop-default.demo", "password": own}

    def members():
        told = redis.cli("-n", 2, "HGETALL", "cacheop:default/demo:members", **as_dataset)
        return {name for name in told.split() if name.startswith("node-")}

    assert members() == {"node-0", "node-1", "node-2"}
    assert "NOPERM" in redis.cli("-n", 2, "GET", "other", **as_dataset)
    assert cacheop("load").returncode == 0
    assert "already up" in cacheop("up", *stored.files, "--nodes", "3").stderr
    redis.kill()
    checked(cacheop, stored, monkeypatch)
    redis.start()  # empty, without users
    begin = time.monotonic()
    wait_until(lambda: len(members()) == 3)
    assert time.monotonic() - begin < 10
    monkeypatch.delenv("CACHEOP_REDIS")
    assert "another --redis" in cacheop.fails(2, "up", *stored.files, "--nodes", "3")
    assert cacheop("down").returncode == 0


def test_a_redis_that_will_not_do_starts_nothing(cacheop, stored, redis):
    at = f"127.0.0.1:{redis.port}"
    for url, says in (
        (f"redis://:wrong@{at}", "WRONGPASS"),
        (f"redis://{at}", "NOAUTH"),
        ("redis://127.0.0.1:1", "cannot reach 127.0.0.1:1"),
        (at, "does not begin with redis://"),
    ):
        assert says in cacheop.fails(2, "up", *stored.files, "--nodes", "2", "--redis", url)
        assert_gone(cacheop)
        assert not cacheop.cache.exists()
    assert local.find("default", "demo") is None
