"""`redis`: a real redis-server; `nodes`: workers' members in it, by the Dataset's own user."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from cache_worker.cluster.view import Member
from cache_worker.members.redis import RedisMembers
from cache_worker.members.settings import RedisPlace, RedisServer
from tests.fakes.redis_server import MISSING, SERVER
from tests.fakes.redis_server import RedisServer as Server
from tests.fakes.running_members import RunningMembers

USER, PASSWORD, PREFIX = "cacheop-ns-data", "the Dataset's own", "cacheop:ns/data:"


@pytest.fixture
def redis(tmp_path):
    if SERVER is None:
        pytest.skip(MISSING)
    server = Server(tmp_path).start()
    try:
        yield server
    finally:
        server.go_on()
        server.close()


@pytest.fixture
def place(redis, tmp_path):
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\n")
    return RedisPlace(RedisServer("127.0.0.1", redis.port, 0, False, USER, file), PREFIX)


@pytest.fixture
def config(redis, place, tmp_path):
    """CONFIG of the node that may make users."""
    path = tmp_path / "node-0.json"
    (tmp_path / "token").write_text("5" * 64)
    url = f"redis://{USER}@127.0.0.1:{redis.port}/0"
    document = {
        "apiVersion": "cacheop.io/v1alpha1",
        "kind": "Dataset",
        "metadata": {"name": "data"},
        "spec": {"mounts": [{"mountPoint": f"file://{tmp_path}"}]},
    }
    path.write_text(
        json.dumps(
            {
                "dataset": document,
                "namespace": "ns",
                "name": "data",
                "node": "node-0",
                "root": str(tmp_path / "root"),
                "secrets": str(tmp_path),
                "token_file": str(tmp_path / "token"),
                "peers": "127.0.0.1:0",
                "members": {
                    "redis": {
                        "url": url,
                        "password_file": str(place.server.password_file),
                        "prefix": PREFIX,
                    }
                },
                "redis_admin": {
                    "url": f"redis://127.0.0.1:{redis.port}",
                    "password_file": str(redis.admin_file),
                },
            }
        )
    )
    return path


@pytest.fixture
def keeper(config, tmp_path):
    """`redis-acl` as a process; its log is `keeper.log`."""
    with (tmp_path / "keeper.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "cache_worker", "redis-acl", str(config)], stderr=log
        )
    yield process
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0


class Nodes:
    """Members that run; all are ended at the end."""

    def __init__(self, place):
        self._place = place
        self.running = {}

    def start(self, *numbers, **facts):
        for number in numbers:
            node = f"n{number}"
            me = Member(node, f"127.0.0.1:{7000 + number}", zone="z", instance="i")
            members = RedisMembers(self._place, replace(me, **facts))
            self.running[node] = RunningMembers(members)
        return [self.running[f"n{number}"] for number in numbers]

    async def kill(self, number):
        await self.running.pop(f"n{number}").stop()

    async def agree(self, seconds):
        """Until each sees all who run, and nobody else; how many seconds that took."""
        wanted = sorted(self.running)
        loop = asyncio.get_running_loop()
        started = loop.time()
        for node in self.running.values():
            await node.until(
                lambda node=node: sorted(node.nodes()) == wanted,
                max(0.01, seconds - (loop.time() - started)),
            )
        return loop.time() - started

    def clear_views(self):
        for node in self.running.values():
            node.views.clear()

    def changes(self):
        return sum(len(node.views) for node in self.running.values())

    async def stop(self):
        for node in list(self.running.values()):
            await node.stop()


@pytest.fixture
def with_nodes(place):
    """Runs `async test(nodes)` with nodes that are ended whatever it does."""

    def run(test):
        async def main():
            nodes = Nodes(place)
            try:
                await test(nodes)
            finally:
                await nodes.stop()

        asyncio.run(main())

    return run


@pytest.fixture
def measured(capsys, request):
    """Prints what a test measured, also when it passes."""

    def say(text):
        with capsys.disabled():
            sys.stdout.write(f"\n{request.node.name}: {text}\n")

    return say
