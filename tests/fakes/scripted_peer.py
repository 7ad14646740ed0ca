"""A peer that knows the token and then does what a test tells it; and one that asks by hand."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Any

from cache_worker.cluster.view import Member
from cache_worker.peers.client import Limits, Peers
from cache_worker.peers.stream import Stream, split_address
from cacheop.api import wire
from cacheop.api.tokens import proof
from tests.fakes.peer_service import TOKEN, VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cache_worker.peers.stream import Head

    Script = Callable[[Stream, Head], None]


def greet(stream: Stream, node: str = "b") -> None:
    """The server's part of the beginning."""
    challenge = {"op": "challenge", "nonce": "00"}
    stream.send_frame(wire.Frame(wire.EVENT, 0, challenge))
    auth = stream.head(5)
    assert auth.meta["mac"] == proof(TOKEN, "peer", "00")
    mac = proof(TOKEN, "peer-server", auth.meta["nonce"])
    stream.send_frame(wire.Frame(wire.RESPONSE, 0, {"node": node, "mac": mac}))


@contextlib.contextmanager
def scripted_peer(script: Script | None, *, greeting: bytes | None = None) -> Iterator[Member]:
    """Calls `script` with each request; `greeting`: says only this, to whoever connects."""
    listener = socket.create_server(("127.0.0.1", 0))
    open_streams: list[Stream] = []

    def serve(stream: Stream) -> None:
        with contextlib.suppress(OSError):
            if greeting is not None:
                stream.send(greeting)
                stream.head(5)
            greet(stream)
            while script is not None:
                script(stream, stream.head(30))
        stream.close()

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                stream = Stream(listener.accept()[0], 5)
                open_streams.append(stream)
                threading.Thread(target=serve, args=(stream,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        host, port = listener.getsockname()
        yield Member("b", f"{host}:{port}", "z1")
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for stream in open_streams:
            stream.shutdown()


def knock(address: str) -> Stream:
    """A connection to a PeerServer that has said nothing yet."""
    return Stream(socket.create_connection(split_address(address)), 5)


def introduce(stream: Stream, **changes: Any) -> Head:
    """The client's part of the beginning; the server's answer."""
    nonce = stream.head(5).meta["nonce"]
    auth = {
        "op": "auth",
        "purpose": "peer",
        "mac": proof(TOKEN, "peer", nonce),
        "nonce": "11",
        "node": "a",
        "zone": "z1",
        "protocol": 1,
    }
    stream.send_frame(wire.Frame(wire.REQUEST, 0, {**auth, **changes}))
    return stream.head(5)


async def ask_once(member, length=10, token="sesame", seconds=5.0, stall_seconds=5.0):
    """One fetch by a client of its own."""
    peers = Peers(token, "a", "z1", Limits(stall_seconds=stall_seconds))
    try:
        return await peers.fetch(member, VERSION, 1, 0, length, seconds=seconds)
    finally:
        await peers.close()
        assert not peers._threads
