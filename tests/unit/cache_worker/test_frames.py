"""One connection of the framed protocol, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache_worker.frames import RUNNING_MAX, Connection
from cacheop.api import wire
from cacheop.api.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

SECONDS = 10.0


@contextlib.asynccontextmanager
async def connected(
    got: Callable[[wire.Frame], None], payload_max_bytes: int = 1 << 20
) -> AsyncIterator[tuple[Connection, socket.socket]]:
    """A Connection and the socket at its other end."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(
        lambda: Connection(got, payload_max_bytes), sock=ours
    )
    with theirs:
        yield connection, theirs
        connection.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():  # noqa: ASYNC110 - of a socket, which sets no event
            await asyncio.sleep(0.005)


def request(number: int, payload: bytes = b"") -> bytes:
    return wire.encode(wire.Frame(wire.REQUEST, number, {"op": "read"}, payload))


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.binary(max_size=3000), min_size=1, max_size=20),
    st.lists(st.integers(1, 5000), min_size=1, max_size=10),
)
def test_frames_arrive_whole_and_in_order_however_they_are_cut(payloads, cuts):
    async def run() -> None:
        found: list[wire.Frame] = []
        stream = b"".join(request(number, payload) for number, payload in enumerate(payloads))
        async with connected(found.append) as (_, theirs):
            loop, cut = asyncio.get_running_loop(), 0
            while stream:
                await loop.sock_sendall(theirs, stream[: cuts[cut % len(cuts)]])
                await asyncio.sleep(0)
                stream, cut = stream[cuts[cut % len(cuts)] :], cut + 1
            await until(lambda: len(found) == len(payloads))
        assert [(f.request_id, f.payload) for f in found] == list(enumerate(payloads))

    asyncio.run(run())


def test_who_sends_waits_for_a_slow_receiver():
    async def run() -> None:
        async with connected(lambda _: None) as (connection, theirs):
            payload = bytes(range(256)) * (8 << 10)
            head = wire.encode_head(wire.RESPONSE, 1, {}, len(payload))
            sending = asyncio.create_task(connection.send(head, payload))
            done, _ = await asyncio.wait({sending}, timeout=0.2)
            assert not done
            loop, received = asyncio.get_running_loop(), bytearray()
            async with asyncio.timeout(SECONDS):
                while len(received) < len(head) + len(payload):
                    received += await loop.sock_recv(theirs, 1 << 16)
                await sending
            assert bytes(received) == head + payload

    asyncio.run(run())


@pytest.mark.parametrize("end", ["close", "shutdown"])
def test_the_end_cancels_what_was_asked_for_and_calls_back_once(end):
    async def run() -> None:
        cancelled, closed = [], []

        async def work() -> None:
            try:
                await asyncio.sleep(3600)
            finally:
                cancelled.append(1)

        async with connected(lambda _: connection.start(work())) as (connection, theirs):
            connection.on_close.append(lambda: closed.append(1))
            await asyncio.get_running_loop().sock_sendall(theirs, request(1) + request(2))
            await asyncio.sleep(0.05)
            theirs.close() if end == "close" else theirs.shutdown(socket.SHUT_WR)
            await until(lambda: len(cancelled) == 2)
            await connection.send(request(1))  # lost, and no error
        assert closed == [1]

    asyncio.run(run())


@pytest.mark.parametrize("bad", [b"GET / HTTP/1.1\r\n\r\n", request(1, b"too long")])
def test_what_makes_no_sense_ends_the_connection(bad):
    async def run() -> None:
        found: list[wire.Frame] = []
        async with connected(found.append, payload_max_bytes=4) as (_, theirs):
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(theirs, bad)
            assert await asyncio.wait_for(loop.sock_recv(theirs, 1), SECONDS) == b""
        assert not found

    asyncio.run(run())


def test_what_comes_after_a_frame_that_ends_the_connection_is_not_looked_at():
    async def run() -> None:
        found: list[int] = []

        def got(frame: wire.Frame) -> None:
            found.append(frame.request_id)
            raise ProtocolError("no")

        async with connected(got) as (_, theirs):
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(theirs, request(1) + request(2))
            assert await asyncio.wait_for(loop.sock_recv(theirs, 1), SECONDS) == b""
        assert found == [1]

    asyncio.run(run())


def test_nothing_is_received_while_very_many_run():
    async def run() -> None:
        found: list[int] = []
        gate = asyncio.Event()

        async def work() -> None:
            await gate.wait()

        def got(frame: wire.Frame) -> None:
            found.append(frame.request_id)
            connection.start(work())

        async with connected(got) as (connection, theirs):
            loop = asyncio.get_running_loop()
            first = b"".join(map(request, range(RUNNING_MAX)))
            await loop.sock_sendall(theirs, first)
            await until(lambda: len(found) == RUNNING_MAX)
            await loop.sock_sendall(theirs, request(RUNNING_MAX))
            await asyncio.sleep(0.1)
            assert len(found) == RUNNING_MAX
            gate.set()
            await until(lambda: len(found) == RUNNING_MAX + 1)

    asyncio.run(run())
