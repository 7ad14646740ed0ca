"""Peers that are broken, old, slow or not ours: right errors, and nobody else suffers."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time

import pytest
import xxhash

from cache_worker.peers.errors import PeerBadBytes, PeerUnavailable
from cache_worker.peers.server import Caps
from cacheop.api import wire
from tests.fakes.peer_service import VERSION, pair, until
from tests.fakes.scripted_peer import ask_once, introduce, knock, scripted_peer

pytestmark = pytest.mark.node


def frame(kind, request, meta, payload=b"", **changes):
    data = bytearray(wire.encode(wire.Frame(kind, request.request_id, meta, payload)))
    if "version" in changes:
        data[2] = changes["version"]
    return bytes(data)


GOOD = f"{xxhash.xxh3_64_intdigest(b'0123456789'):016x}"


def test_a_scripted_peer_that_does_right_is_understood():
    def script(stream, request):
        assert request.meta["chunks"] == [[1, 0, 10]]
        for part in (b"0123", b"456789"):
            stream.send(frame(wire.EVENT, request, {"n": 0}, part))
        stream.send(frame(wire.RESPONSE, request, {"n": 0, "checksum": GOOD}))

    with scripted_peer(script) as member:
        assert bytes(asyncio.run(ask_once(member)).data) == b"0123456789"


END = (wire.RESPONSE, {"n": 0, "checksum": GOOD}, b"")
SAYS = {
    "wrong bytes": [(wire.EVENT, {"n": 0}, b"0123456780"), END],
    "too much": [(wire.EVENT, {"n": 0}, b"0123456789x")],
    "too little": [(wire.EVENT, {"n": 0}, b"012"), END],
    "of another": [(wire.EVENT, {"n": 1}, b"012")],
    "empty pieces": [(wire.EVENT, {"n": 0}, b"")],
    "no checksum": [(wire.EVENT, {"n": 0}, b"0123456789"), (wire.RESPONSE, {"n": 0}, b"")],
    "a request": [(wire.REQUEST, {"op": "get"}, b"")],
    "an error with bytes": [(wire.ERROR, {"n": 0}, b"x")],
}  # fmt: skip


@pytest.mark.parametrize("says", SAYS.values(), ids=SAYS)
def test_a_peer_that_does_not_keep_to_the_protocol_sent_bad_bytes(says):
    def script(stream, request):
        stream.send(b"".join(frame(kind, request, meta, data) for kind, meta, data in says))

    with scripted_peer(script) as member, pytest.raises(PeerBadBytes, match="node b at"):
        asyncio.run(ask_once(member))


@pytest.mark.parametrize(
    "data",
    [b"HTTP/1.1 400 Bad Request\r\n\r\n", bytes(4096), b"CO\x01\x09" + bytes(12), os.urandom(99)],
)
def test_garbage_is_bad_bytes_before_and_after_the_token(data):
    with scripted_peer(None, greeting=data) as member, pytest.raises(PeerBadBytes):
        asyncio.run(ask_once(member))
    with scripted_peer(lambda stream, _: stream.send(data)) as member, pytest.raises(PeerBadBytes):
        asyncio.run(ask_once(member))


def test_a_peer_that_stops_in_the_middle_is_given_up():
    def script(stream, request):
        stream.send(frame(wire.EVENT, request, {"n": 0}, b"0123456789")[:-3])
        time.sleep(3)

    with scripted_peer(script) as member:
        start = time.monotonic()
        with pytest.raises(PeerUnavailable):  # by what it asked for
            asyncio.run(ask_once(member, seconds=0.3))
        assert time.monotonic() - start < 1
        with pytest.raises(PeerUnavailable, match="nothing came"):  # by silence
            asyncio.run(ask_once(member, seconds=30, stall_seconds=0.3))
        assert time.monotonic() - start < 2.5


def test_a_peer_that_drips_is_given_up_when_time_is_over():
    def script(stream, request):
        for byte in frame(wire.EVENT, request, {"n": 0}, b"0123456789"):
            stream.send(bytes([byte]))
            time.sleep(0.1)

    with scripted_peer(script) as member, pytest.raises(PeerUnavailable):
        asyncio.run(ask_once(member, seconds=0.5))


def test_a_peer_that_accepts_and_says_nothing_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with scripted_peer(None) as member, pytest.raises(PeerUnavailable):
            asyncio.run(ask_once(type(member)("b", address), stall_seconds=0.2))


def test_a_peer_that_does_not_know_the_token_is_not_believed():
    challenge = wire.encode(wire.Frame(wire.EVENT, 0, {"op": "challenge", "nonce": "0"}))
    welcome = wire.encode(wire.Frame(wire.RESPONSE, 0, {"node": "b", "mac": "0" * 64}))
    with (
        scripted_peer(None, greeting=challenge + welcome) as member,
        pytest.raises(PeerUnavailable, match="does not know our token"),
    ):
        asyncio.run(ask_once(member))


def test_an_old_peer_is_named():
    old = bytearray(wire.encode(wire.Frame(wire.EVENT, 0, {"op": "challenge", "nonce": "0"})))
    old[2] = 0
    with (
        scripted_peer(None, greeting=bytes(old)) as member,
        pytest.raises(PeerBadBytes, match=r"node b at .*version 0.*node a"),
    ):
        asyncio.run(ask_once(member))


# -- against the server ----------------------------------------------------------------------------


def test_a_wrong_token_names_both_sides_and_the_server_goes_on(tmp_path, caplog):
    async def run():
        async with pair(tmp_path) as nodes:
            nodes.service.put(1, b"0123456789")
            with pytest.raises(PeerUnavailable, match=r"wrong token: .*node b, asked by node a"):
                await ask_once(nodes.member, token="other")
            assert await nodes.fetch(1, 10) == b"0123456789"

    with caplog.at_level(logging.WARNING):
        asyncio.run(run())
    assert "wrong token" in caplog.text


def send_and_listen(stream, data):
    """Perhaps an ERROR comes, then the end."""
    stream.send(data)
    while True:
        stream.head(5)


def refusal(stream, **changes):
    answer = introduce(stream, **changes)
    assert answer.kind == wire.ERROR
    return answer.meta["error"], answer.meta["message"]


def test_who_is_not_let_in_is_told_why(tmp_path):
    async def run():
        async with pair(tmp_path) as nodes:

            def strangers():
                address = nodes.member.address
                for changes, error, words in [
                    ({"protocol": 0}, "ProtocolError", "peer protocol 0, we speak 1"),
                    ({"purpose": "client"}, "ProtocolError", "this port is for peers"),
                    ({"mac": "é"}, "CredentialError", "wrong token"),
                    ({"mac": 5}, "CredentialError", "wrong token"),
                    ({"node": 5}, "ProtocolError", "node 5"),
                    ({"op": "get"}, "ProtocolError", "authenticate first"),
                ]:
                    stream = knock(address)
                    name, message = refusal(stream, **changes)
                    assert (name, words in message, "node b" in message) == (error, True, True)
                    with pytest.raises(ConnectionError):
                        stream.head(5)
                    stream.close()
                old = knock(address)
                old.head(5)
                old.send(b"CO\x00\x01" + bytes(12))
                answer = old.head(5)
                assert "protocol version 0, this side speaks 1" in answer.meta["message"]
                old.close()

            await asyncio.to_thread(strangers)

    asyncio.run(run())


def test_garbage_ends_its_connection_only(tmp_path, caplog):
    async def run():
        async with pair(tmp_path) as nodes:
            nodes.service.put(1, b"0123456789")

            def send(data, *, known):
                stream = knock(nodes.member.address)
                if known:
                    assert introduce(stream).kind == wire.RESPONSE
                else:
                    stream.head(5)
                with pytest.raises(ConnectionError):
                    send_and_listen(stream, data)
                stream.close()

            for known in (False, True):
                for data in (
                    b"GET / HTTP/1.1\r\nHost: b\r\n\r\n",
                    b"\xff" * 100_000,
                    b"CO\x01\x07" * 9,
                ):
                    await asyncio.to_thread(send, data, known=known)
            response = wire.encode(wire.Frame(wire.RESPONSE, 1, {}))
            payload = wire.encode(wire.Frame(wire.REQUEST, 1, {"op": "get"}, b"x"))
            two = wire.encode(wire.Frame(wire.REQUEST, 1, {"op": "wait", "wait_seconds": 60})) * 2
            for data in (response, payload, two):
                await asyncio.to_thread(send, data, known=True)
            assert await nodes.fetch(1, 10) == b"0123456789"

    with caplog.at_level(logging.WARNING):
        asyncio.run(run())
    assert caplog.text.count("ended:") == 1  # once a minute for a host: nobody floods the log


def test_a_get_beyond_the_limits_is_answered_with_an_error(tmp_path):
    async def run():
        async with pair(tmp_path) as nodes:

            def many():
                stream = knock(nodes.member.address)
                introduce(stream)
                meta = {"op": "get", "version": VERSION, "chunks": [[0, 0, 1 << 30]], "hops": 1}
                stream.send_frame(wire.Frame(wire.REQUEST, 9, meta))
                answer = stream.head(5)
                assert (answer.kind, answer.request_id) == (wire.ERROR, 9)
                assert "n" not in answer.meta
                stream.close()

            await asyncio.to_thread(many)

    asyncio.run(run())


def test_strangers_are_few_and_short_lived(tmp_path):
    async def run():
        async with pair(tmp_path, caps=Caps(strangers=4, auth_seconds=1.0)) as nodes:
            nodes.service.put(1, b"0123456789")
            strangers = [await asyncio.to_thread(knock, nodes.member.address) for _ in range(50)]
            assert await nodes.fetch(1, 10) == b"0123456789"
            await until(lambda: len(nodes.server._connections) <= 1)
            for stranger in strangers:
                stranger.close()

    asyncio.run(run())


def test_connections_have_an_end(tmp_path):
    async def run():
        async with pair(tmp_path, caps=Caps(peer_connections=2, connections=3)) as nodes:

            def come():
                streams = [knock(nodes.member.address) for _ in range(3)]
                assert introduce(streams[0]).kind == introduce(streams[1]).kind == wire.RESPONSE
                assert "2 connections" in refusal(streams[2])[1]
                return streams

            def come_too():
                other = knock(nodes.member.address)
                introduce(other, node="c")
                full = knock(nodes.member.address)
                assert "serves 3 peers" in full.head(5).meta["message"]
                return [other, full]

            streams = await asyncio.to_thread(come)
            await until(lambda: len(nodes.server._connections) == 2)
            for stream in (*streams, *await asyncio.to_thread(come_too)):
                stream.close()

    asyncio.run(run())


def test_an_asker_that_takes_nothing_is_given_up(tmp_path):
    async def run():
        async with pair(tmp_path, caps=Caps(stall_seconds=0.3)) as nodes:
            nodes.service.put(1, bytes(8 << 20))

            def sleep():
                stream = knock(nodes.member.address)
                introduce(stream)
                chunks = [[1, 0, 8 << 20]]
                meta = {"op": "get", "version": VERSION, "chunks": chunks, "hops": 1}
                stream._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
                stream.send_frame(wire.Frame(wire.REQUEST, 1, meta))
                return stream

            stream = await asyncio.to_thread(sleep)
            await until(lambda: not nodes.server._connections)
            stream.close()

    asyncio.run(run())
