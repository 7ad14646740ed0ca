"""A chunk that is passed on while it comes in: the right bytes, in order, or what went wrong."""

from __future__ import annotations

import asyncio
import random
import threading
from functools import partial

import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from cache_worker.cluster.arriving import RELAY_BYTES, Arriving
from cache_worker.cluster.route import Asked
from cacheop.api.errors import CacheopError, OriginChanged, OriginError, WorkerUnavailable
from tests.fakes.node_cache import NodeCache
from tests.fakes.origin import MemoryOrigin

SECONDS = 20.0
DATA = random.Random(7).randbytes(3 << 20)


def taken(arriving: Arriving) -> bytes:
    """All pieces, as a thread that serves a peer takes them."""
    found = b""
    while piece := arriving.piece(len(found), SECONDS):
        found += piece
    return found


def in_thread(arriving: Arriving, outcome: list[object]) -> threading.Thread:
    def run() -> None:
        try:
            outcome.append(taken(arriving))
        except CacheopError as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@settings(deadline=None)
@given(
    st.binary(min_size=1, max_size=2000),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(1, 900))),
)
def test_pieces_that_come_again_or_overlap_change_nothing(data, pieces):
    begun: list[None] = []
    arriving = Arriving(len(data), partial(begun.append, None))
    for offset, length in [*pieces, (0, len(data))]:
        arriving.arrived(offset, memoryview(data)[offset : offset + length])
    arriving.end()
    assert taken(arriving) == data
    assert arriving.whole() == arriving.checksum == xxhash.xxh3_64_intdigest(data)
    assert len(begun) == 1


def test_what_is_not_whole_is_an_error_whoever_waits():
    arriving = Arriving(10, lambda: None)
    outcome: list[object] = []
    thread = in_thread(arriving, outcome)
    arriving.arrived(0, memoryview(b"12345"))
    arriving.end()
    thread.join(SECONDS)
    assert isinstance(outcome[0], WorkerUnavailable)
    assert arriving.checksum is None


def test_nothing_for_too_long():
    with pytest.raises(TimeoutError):
        Arriving(10, lambda: None).piece(0, 0.01)


@pytest.fixture
def node(tmp_path):
    origin = MemoryOrigin({"big": DATA, "small": DATA[: RELAY_BYTES - 1]})
    node = NodeCache(tmp_path, origin)
    yield node, origin, node.add_version()
    node.close()


def give(node: NodeCache, version, path: str):
    row = version.index.resolve(path)
    return node.cache.give(version, row, 0, Asked("b"))


def test_a_peer_has_the_first_half_before_the_origin_sent_the_second(node):
    cache, origin, version = node

    async def run() -> None:
        origin.gate.clear()
        arriving = await give(cache, version, "big")
        assert isinstance(arriving, Arriving)
        assert arriving.piece(0, SECONDS) == DATA[: len(DATA) // 2]
        another = await give(cache, version, "big")
        assert another is arriving
        origin.gate.set()
        assert await asyncio.to_thread(taken, arriving) == DATA
        assert await cache.read(version, "big") == DATA

    asyncio.run(run())
    assert origin.fetched == [("big", 0, len(DATA))]


def test_small_chunks_come_whole(node):
    cache, origin, version = node

    async def run() -> None:
        assert await give(cache, version, "small") is None  # it is in the store now
        assert await cache.read(version, "small") == DATA[: RELAY_BYTES - 1]

    asyncio.run(run())
    assert len(origin.fetched) == 1


@pytest.mark.parametrize("error", [OriginError("broken"), OriginChanged("another")])
def test_what_the_origin_says_in_the_middle_is_passed_on(node, error):
    cache, origin, version = node

    async def run() -> None:
        origin.gate.clear()
        arriving = await give(cache, version, "big")
        outcome: list[object] = []
        thread = in_thread(arriving, outcome)
        origin.errors["big"] = error
        origin.gate.set()
        await asyncio.to_thread(thread.join, SECONDS)
        assert type(outcome[0]) is type(error)

    asyncio.run(run())


def test_an_asker_that_goes_away_stops_no_fill(node):
    cache, origin, version = node

    async def run() -> None:
        origin.gate.clear()
        asking = asyncio.create_task(give(cache, version, "small"))
        await asyncio.sleep(0.01)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        origin.gate.set()
        assert await cache.read(version, "small") == DATA[: RELAY_BYTES - 1]

    asyncio.run(run())
    assert len(origin.fetched) == 1
