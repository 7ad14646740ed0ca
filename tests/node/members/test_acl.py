"""`redis-acl` as a process: what it does when it is told nonsense, or its Redis is away."""

import json
import subprocess
import sys
import time

import pytest

from tests.node.members.conftest import PASSWORD, PREFIX, USER

pytestmark = pytest.mark.node


def run(*words):
    return subprocess.run(
        [sys.executable, "-m", "cache_worker", *words],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def change(config, **fields):
    config.write_text(json.dumps({**json.loads(config.read_text()), **fields}))


def test_a_wrong_config_ends_it_with_code_two(config):
    change(config, redis_admin=None)
    done = run("redis-acl", str(config))
    assert (done.returncode, "redis_admin" in done.stderr) == (2, True)
    change(config, redis_admin={"url": "http://x"})
    done = run("redis-acl", str(config))
    assert (done.returncode, "redis_admin.url" in done.stderr) == (2, True)
    assert "Traceback" not in done.stderr
    assert run("redis-acl").returncode == 2


def test_it_says_what_is_wrong_once_and_goes_on_trying(redis, keeper, tmp_path):
    wait(lambda: redis.cli("PING", user=USER, password=PASSWORD) == "PONG")
    redis.admin_file.write_text("wrong")
    redis.cli("CLIENT", "KILL", "USER", "default")
    log = tmp_path / "keeper.log"
    wait(lambda: "WRONGPASS" in log.read_text())
    time.sleep(3)
    assert log.read_text().count("WRONGPASS") == 1
    redis.admin_file.write_text("the admin's own")
    wait(lambda: "answers again" in log.read_text())
    assert PASSWORD not in log.read_text()


def test_passwords_are_in_no_log_of_redis(redis, keeper):
    wait(lambda: redis.cli("PING", user=USER, password=PASSWORD) == "PONG")
    redis.cli("CONFIG", "SET", "slowlog-log-slower-than", "0")
    time.sleep(6)
    assert PASSWORD not in redis.cli("SLOWLOG", "GET", "100")
    assert f"~{PREFIX}*" in redis.cli("ACL", "LIST")


def test_the_launcher_of_the_node_that_may_keeps_the_user(redis, config):
    launcher = subprocess.Popen([sys.executable, "-m", "cache_worker", "run", str(config)])
    try:
        wait(lambda: redis.cli("PING", user=USER, password=PASSWORD) == "PONG", 20)
        redis.cli("ACL", "DELUSER", USER)
        wait(lambda: redis.cli("PING", user=USER, password=PASSWORD) == "PONG", 10)
    finally:
        launcher.terminate()
        assert launcher.wait(20) == 0


def wait(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
