"""Frames with odd kinds, ids, orders and metas, to the server and to the client."""

from __future__ import annotations

import asyncio
import json

import pytest
import xxhash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cache_worker.peers.client import Peers
from cache_worker.peers.errors import PeerBadBytes, PeerError
from cache_worker.peers.server import Caps, PeerServer
from cacheop.api import wire
from cacheop.api.errors import CacheopError
from tests.fakes.peer_service import VERSION, PeerService, until
from tests.fakes.scripted_peer import ask_once, introduce, knock, scripted_peer

pytestmark = pytest.mark.node

GOOD = f"{xxhash.xxh3_64_intdigest(b'0123456789'):016x}"
JSON = st.none() | st.booleans() | st.integers(-2, 70) | st.text(max_size=3) | st.just(GOOD)
META = st.fixed_dictionaries(
    {},
    optional={
        "op": st.sampled_from(["get", "hello", "file", "auth", "wait", ""]) | JSON,
        "n": JSON,
        "checksum": JSON,
        "version": st.just(VERSION) | JSON,
        "chunks": st.lists(st.lists(st.integers(-1, 20), min_size=2, max_size=4), max_size=3)
        | JSON,
        "hops": JSON,
        "only_if_present": JSON,
        "error": JSON,
        "length": st.integers(-5, 100) | JSON,
        "wait_seconds": st.just(0),
    },
)
FRAMES = st.lists(
    st.tuples(
        st.integers(0, 5), st.integers(0, 2), META, st.binary(max_size=12), st.integers(0, 3)
    ),
    min_size=1,
    max_size=6,
)


def fuzzed(frames) -> bytes:
    """Frames with odd kinds, ids and metas; where the last number is 0, cut or spoilt."""
    parts = []
    for kind, request_id, meta, payload, spoil in frames:
        body = json.dumps(meta).encode()
        if not spoil:
            body = body[: len(body) // 2] + b"\x00"
        head = wire.HEADER.pack(b"CO", 1, kind, request_id, len(body), len(payload))
        parts.append(head + body + payload)
    return b"".join(parts)


def test_fuzzed_frames_do_not_hurt_the_server(tmp_path):
    async def run():
        server = PeerServer(PeerService(tmp_path), "sesame", "b", "z1", Caps(stall_seconds=0.5))
        address = server.listen("127.0.0.1", 0)
        server._service.put(1, b"0123456789")
        peers = Peers("sesame", "a", "z1")

        @settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
        @given(FRAMES, st.booleans())
        def fuzz(frames, known):
            stream = knock(address)
            if known:
                introduce(stream)
            stream.send(fuzzed(frames))
            stream.shutdown()
            stream.close()

        await asyncio.to_thread(fuzz)
        with scripted_peer(None) as any_member:
            member = type(any_member)("b", address, "z1")
        assert bytes((await peers.fetch(member, VERSION, 1, 0, 10)).data) == b"0123456789"
        await peers.close()
        await until(lambda: not server._connections)
        await server.close()
        assert not server._threads

    asyncio.run(run())


def test_fuzzed_answers_never_become_bytes():
    """Whatever a peer says: an error of ours, or ten bytes with that checksum."""

    @settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
    @given(FRAMES)
    def fuzz(frames):
        def script(stream, request):
            stream.send(fuzzed(frames))
            stream.shutdown()

        with scripted_peer(script) as member:
            try:
                found = asyncio.run(ask_once(member, seconds=2, stall_seconds=0.5))
            except CacheopError:
                return
            assert bytes(found.data) == b"0123456789"

    fuzz()
    assert issubclass(PeerBadBytes, PeerError)
