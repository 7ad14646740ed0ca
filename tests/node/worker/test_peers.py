"""A client and a server of the peers' protocol over real sockets."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random

import pytest

from cache_worker.peers.client import Limits, Peers
from cache_worker.peers.errors import PeerAbsent, PeerBadBytes, PeerUnavailable
from cacheop.api.errors import CacheopError, OriginChanged, ProtocolError, StoreError
from tests.fakes.peer_service import VERSION, two, until

pytestmark = pytest.mark.node

CHUNK = 8 << 20
SMALL = 110 * 1024


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_what_is_there_comes_as_it_is(tmp_path):
    async def run():
        async with two(tmp_path) as nodes:
            data = {row: os.urandom(size) for row, size in enumerate([0, 1, SMALL, 3 * CHUNK + 5])}
            for row, content in data.items():
                nodes.service.put(row, content)
            for row in (0, 1, 2):
                assert await nodes.fetch(row, len(data[row])) == data[row]
            got = await asyncio.gather(
                *(nodes.fetch(3, CHUNK, c) for c in range(3)), nodes.fetch(3, 5, 3)
            )
            assert sha(b"".join(got)) == sha(data[3])
            total = sum(map(len, data.values()))
            assert (
                nodes.peers.received.same_zone_bytes == nodes.server.sent.same_zone_bytes == total
            )
            assert nodes.peers.received.results == nodes.server.sent.results == {"ok": 7}

    asyncio.run(run())


def test_bytes_between_zones_are_counted_apart(tmp_path):
    async def run():
        async with two(tmp_path) as nodes:
            nodes.service.put(0, b"x" * 1000)
            far = Peers("sesame", "c", "z2")
            await far.fetch(nodes.member, VERSION, 0, 0, 1000)
            await far.close()
            assert nodes.server.sent.other_zone_bytes == far.received.other_zone_bytes == 1000
            assert nodes.server.sent.same_zone_bytes == far.received.same_zone_bytes == 0

    asyncio.run(run())


@pytest.mark.parametrize("may_store", [True, False])
def test_what_is_absent_is_provided(tmp_path, may_store):
    async def run():
        async with two(tmp_path) as nodes:
            nodes.service.may_store = may_store
            data = nodes.service.origin[5] = os.urandom(CHUNK + 7)
            got = await asyncio.gather(
                nodes.fetch(5, CHUNK, 0, hops=2), nodes.fetch(5, 7, 1, hops=2)
            )
            assert sha(b"".join(got)) == sha(data)
            row, _, hops, asker = nodes.service.provided[0]
            assert (row, hops, asker.node, asker.zone) == (5, 2, "a", "z1")

    asyncio.run(run())


def test_only_if_present_reads_no_origin(tmp_path):
    async def run():
        async with two(tmp_path) as nodes:
            nodes.service.origin[1] = b"x"
            with pytest.raises(PeerAbsent):
                await nodes.fetch(1, 1, only_if_present=True)
            assert nodes.service.provided == []
            nodes.service.put(1, b"x")
            assert await nodes.fetch(1, 1, only_if_present=True) == b"x"
            assert nodes.peers.received.results == {"absent": 1, "ok": 1}

    asyncio.run(run())


def test_an_error_of_the_origin_is_passed_on_and_the_connection_stays(tmp_path):
    async def run():
        async with two(tmp_path) as nodes:
            nodes.service.fails[1] = OriginChanged("x changed", hint="refresh")
            nodes.service.put(2, b"good")
            bad, good = await asyncio.gather(
                nodes.fetch(1, 1), nodes.fetch(2, 4), return_exceptions=True
            )
            assert good == b"good"
            assert isinstance(bad, OriginChanged)
            assert (bad.message, bad.hint) == ("x changed", "refresh")
            del nodes.service.fails[1]  # now a KeyError in the service: the peer is told so
            with pytest.raises(CacheopError, match="node b failed"):
                await nodes.fetch(1, 1)
            with pytest.raises(ProtocolError, match="4 bytes, not 3"):
                await nodes.fetch(2, 3)

    asyncio.run(run())


def test_fills_of_a_batch_run_together_and_what_is_ready_comes_first(tmp_path):
    async def run():
        limits = Limits(connections=1)
        async with two(tmp_path, limits=limits) as nodes:
            nodes.service.put(0, b"warm up")
            await nodes.fetch(0, 7)
            nodes.service.gate.clear()
            for row in range(1, 21):
                nodes.service.origin[row] = bytes([row]) * row
                if row % 2:
                    nodes.service.put(row, nodes.service.origin[row])
            fetches = {row: asyncio.create_task(nodes.fetch(row, row)) for row in range(1, 21)}
            async with asyncio.timeout(5):
                await asyncio.gather(*(fetches[row] for row in range(1, 21, 2)))
                await until(lambda: nodes.service.providing == 10)
            assert not any(fetches[row].done() for row in range(2, 21, 2))
            nodes.service.gate.set()
            assert await asyncio.gather(*fetches.values()) == [bytes([r]) * r for r in range(1, 21)]
            assert nodes.service.most_providing == 10

    asyncio.run(run())


def test_a_chunk_dropped_while_it_was_sent_is_no_answer(tmp_path):
    async def run():
        async with two(tmp_path) as nodes:
            nodes.service.put(1, os.urandom(SMALL))
            nodes.service.dropped.add(1)
            with pytest.raises(StoreError, match="dropped"):
                await nodes.fetch(1, SMALL)
            nodes.service.dropped.clear()
            await nodes.fetch(1, SMALL)
            assert nodes.server.sent.results == {"dropped": 1, "ok": 1}

    asyncio.run(run())


@pytest.mark.parametrize("size", [1, SMALL, CHUNK])
def test_bytes_that_were_flipped_on_disk_are_found(tmp_path, size):
    async def run():
        async with two(tmp_path) as nodes:
            data = bytearray(os.urandom(size))
            nodes.service.put(1, bytes(data))
            data[size // 2] ^= 1
            nodes.service.path(VERSION, 1).write_bytes(data)
            with pytest.raises(PeerBadBytes, match="node b"):
                await nodes.fetch(1, size)
            assert nodes.peers.received.results == {"bad_bytes": 1}

    asyncio.run(run())


def test_a_file_that_was_cut_ends_the_connection_and_the_next_one_is_good(tmp_path):
    async def run():
        async with two(tmp_path) as nodes:
            data = os.urandom(SMALL)
            nodes.service.put(1, data)
            found = nodes.service.open_present(VERSION, 1, 0)
            found.close()

            def cut(version, row, chunk):
                opened = type(nodes.service).open_present(nodes.service, version, row, chunk)
                os.truncate(nodes.service.path(version, row), 10)
                return opened

            nodes.service.open_present = cut
            with pytest.raises(PeerUnavailable):
                await nodes.fetch(1, SMALL)
            del nodes.service.open_present
            nodes.service.put(1, data)
            assert sha(await nodes.fetch(1, SMALL)) == sha(data)

    asyncio.run(run())


def test_many_at_once(tmp_path):
    """Thousands of fetches of all sizes, from threads that share the loop; all by checksum."""

    async def run():
        async with two(tmp_path) as nodes:
            rng = random.Random(6)
            sizes = [rng.choice([0, 1, 1000, SMALL, 600_000, CHUNK]) for _ in range(60)]
            data = [rng.randbytes(size) for size in sizes]
            for row, content in enumerate(data):
                if row % 3:
                    nodes.service.put(row, content)
                nodes.service.origin[row] = content
            sums = [sha(content) for content in data]
            loop = asyncio.get_running_loop()

            def reader(seed: int) -> int:
                own = random.Random(seed)
                for _ in range(12):
                    row = own.randrange(60)
                    hops = own.choice([1, 1, 2])
                    job = nodes.fetch(row, sizes[row], hops=hops)
                    assert sha(asyncio.run_coroutine_threadsafe(job, loop).result(60)) == sums[row]
                return 12

            done = await asyncio.gather(*(asyncio.to_thread(reader, seed) for seed in range(64)))
            assert sum(done) == 64 * 12
            assert nodes.peers._flight_bytes == {False: 0, True: 0}
            assert nodes.peers._on_wire == {}

    asyncio.run(run())


def test_questions(tmp_path):
    async def run():
        async with two(tmp_path) as nodes:
            ask = nodes.peers.ask
            meta, payload = await ask(nodes.member, "hello", {}, 5)
            assert (meta, bytes(payload)) == ({"node": "b", "asker": "a", "zone": "z1"}, b"")
            meta, payload = await ask(nodes.member, "file", {"offset": 0, "length": 99_999}, 5)
            assert (meta["size"], bytes(payload)) == (1000, b"x" * 99_999)
            with pytest.raises(CacheopError, match="no operation"):
                await ask(nodes.member, "other", {}, 5)
            with pytest.raises(PeerUnavailable, match="did not answer in"):
                await ask(nodes.member, "wait", {"wait_seconds": 60}, 0.1)

    asyncio.run(run())
