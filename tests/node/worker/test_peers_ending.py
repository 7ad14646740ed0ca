"""Fetches that are cancelled, peers that go, limits, and what is left when all is closed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time

import pytest

from cache_worker.cluster.view import Member
from cache_worker.peers.client import Limits
from cache_worker.peers.errors import PeerUnavailable
from cache_worker.peers.server import Caps
from tests.fakes.peer_service import VERSION, two, until

pytestmark = pytest.mark.node

CHUNK = 8 << 20
SMALL = 110 * 1024


def test_a_cancelled_fetch_frees_its_place_and_its_fill(tmp_path):
    async def run():
        async with two(tmp_path, limits=Limits(connections=1)) as nodes:
            nodes.service.gate.clear()
            nodes.service.origin[1] = b"x"
            nodes.service.put(2, b"y")
            blocked = asyncio.create_task(nodes.fetch(1, 1))
            await until(lambda: nodes.service.providing)
            waiting = asyncio.create_task(nodes.fetch(1, 1))
            second = asyncio.create_task(nodes.fetch(2, 1))
            await asyncio.sleep(0.05)
            waiting.cancel()  # in the line: never asked for
            blocked.cancel()  # on the wire, alone: its connection ends
            async with asyncio.timeout(3):
                assert await second == b"y"
                await until(lambda: nodes.service.cancelled)
            assert nodes.service.most_providing == 1
            assert nodes.peers.received.results == {"cancelled": 2, "ok": 1}

    asyncio.run(run())


def test_cancelling_one_of_a_batch_leaves_the_others(tmp_path):
    async def run():
        async with two(tmp_path, limits=Limits(connections=1)) as nodes:
            nodes.service.put(0, b"0")
            await nodes.fetch(0, 1)
            nodes.service.gate.clear()
            nodes.service.origin = dict.fromkeys(range(1, 9), b"x")
            tasks = [asyncio.create_task(nodes.fetch(row, 1)) for row in range(1, 9)]
            await until(lambda: nodes.service.providing == 8)
            tasks[0].cancel()
            await asyncio.sleep(0.05)
            nodes.service.gate.set()
            assert await asyncio.gather(*tasks[1:]) == [b"x"] * 7

    asyncio.run(run())


def test_forwarding_requests_do_not_hold_up_those_that_never_wait_for_others(tmp_path):
    async def run():
        async with two(tmp_path, limits=Limits(connections=2, flight_bytes=CHUNK)) as nodes:
            nodes.service.gate.clear()
            nodes.service.put(99, b"here")
            stuck = [asyncio.create_task(nodes.fetch(row, CHUNK)) for row in range(4)]
            await until(lambda: nodes.service.providing)
            async with asyncio.timeout(3):
                assert await nodes.fetch(99, 4, hops=2) == b"here"
                assert await nodes.fetch(99, 4, only_if_present=True) == b"here"
                assert (await nodes.peers.ask(nodes.member, "hello", {}, 2))[0]["node"] == "b"
            assert nodes.peers._flight_bytes[False] <= CHUNK
            for task in stuck:
                task.cancel()
            await asyncio.gather(*stuck, return_exceptions=True)

    asyncio.run(run())


def test_nobody_there(tmp_path):
    async def run():
        async with two(tmp_path) as nodes:
            nowhere = Member("c", "127.0.0.1:1")
            start = time.monotonic()
            found = await asyncio.gather(
                *(nodes.peers.fetch(nowhere, VERSION, n, 0, 1) for n in range(200)),
                return_exceptions=True,
            )
            assert {type(error) for error in found} == {PeerUnavailable}
            assert "node c at 127.0.0.1:1" in str(found[0])
            assert time.monotonic() - start < 5

    asyncio.run(run())


def test_an_address_that_somebody_else_has_now_is_not_asked(tmp_path):
    async def run():
        async with two(tmp_path) as nodes:
            with pytest.raises(PeerUnavailable, match="is now node b"):
                await nodes.peers.fetch(Member("c", nodes.member.address), VERSION, 0, 0, 1)

    asyncio.run(run())


def test_a_server_that_was_started_again_is_asked_again(tmp_path):
    async def run():
        async with two(tmp_path) as nodes:
            nodes.service.put(1, b"x")
            await nodes.fetch(1, 1)
            await nodes.server.close()
            with pytest.raises(PeerUnavailable):
                await nodes.fetch(1, 1)
            again = type(nodes.server)(nodes.service, "sesame", "b", "z1")
            host, _, port = nodes.member.address.rpartition(":")
            again.listen(host, int(port))
            assert await nodes.fetch(1, 1) == b"x"
            await nodes.peers.close()
            await again.close()

    asyncio.run(run())


def test_idle_connections_end(tmp_path):
    async def run():
        async with two(tmp_path, limits=Limits(idle_seconds=0.2)) as nodes:
            nodes.service.put(1, b"x")
            await nodes.fetch(1, 1)
            assert len(nodes.server._connections) == 1
            await until(lambda: not (nodes.server._connections or nodes.peers._threads))
            assert nodes.peers._lanes == {}
            assert await nodes.fetch(1, 1) == b"x"

    asyncio.run(run())


def test_closing_under_load_ends_everything(tmp_path):
    async def run():
        for first in ("peers", "server"):
            async with two(tmp_path) as nodes:
                nodes.service.origin = {row: os.urandom(SMALL) for row in range(100)}
                nodes.service.may_store = False
                nodes.service.put(200, os.urandom(CHUNK))
                wanted = [(row, SMALL) if row % 5 else (200, CHUNK) for row in range(100)]
                tasks = [asyncio.create_task(nodes.fetch(*one)) for one in wanted]
                await until(lambda: nodes.peers.received.same_zone_bytes)
                start = time.monotonic()
                await getattr(nodes, first).close()
                found = await asyncio.gather(*tasks, return_exceptions=True)
                assert time.monotonic() - start < 5
                wrong = [e for e in found if not isinstance(e, bytes | PeerUnavailable)]
                assert wrong == []
                assert any(isinstance(e, PeerUnavailable) for e in found)

    asyncio.run(run())


def test_a_server_reads_no_more_than_its_room_at_once(tmp_path):
    async def run():
        async with two(tmp_path, caps=Caps(fill_bytes=2 * CHUNK)) as nodes:
            nodes.service.may_store = False
            nodes.service.gate.clear()
            nodes.service.origin = {row: bytes(CHUNK) for row in range(4)}
            tasks = [asyncio.create_task(nodes.fetch(row, CHUNK)) for row in range(4)]
            await asyncio.sleep(0.5)
            assert nodes.service.most_providing == 2
            nodes.service.gate.set()
            await asyncio.gather(*tasks)
            assert nodes.service.most_providing == 2

    asyncio.run(run())


def test_a_connection_that_nobody_accepts_is_given_up_when_nobody_waits(tmp_path):
    """A full backlog drops SYNs, as a host that is gone does."""

    async def run():
        async with two(tmp_path) as nodes:
            with socket.socket() as listener, contextlib.ExitStack() as waiting:
                listener.bind(("127.0.0.1", 0))
                listener.listen(0)
                address = listener.getsockname()
                for _ in range(4):
                    one = waiting.enter_context(socket.socket())
                    one.setblocking(False)
                    one.connect_ex(address)
                silent = Member("c", f"{address[0]}:{address[1]}")
                start = time.monotonic()
                with pytest.raises(PeerUnavailable, match="did not answer in"):
                    await nodes.peers.fetch(silent, VERSION, 0, 0, 1, seconds=0.3)
                await until(lambda: not nodes.peers._on_wire)
                assert time.monotonic() - start < 1.5
                with pytest.raises(PeerUnavailable, match="cannot be reached"):
                    await nodes.peers.fetch(silent, VERSION, 0, 0, 1, seconds=20)
                assert time.monotonic() - start < 6

    asyncio.run(run())
