"""Fetching ahead what a neighbour has, over real stores."""

import asyncio
import random
import time

import pytest

from cache_worker.cluster import gathering
from cache_worker.cluster.gathering import Gathering
from cache_worker.peers.errors import PeerAbsent
from cacheop.api.table import FILLING, PRESENT
from tests.fakes.origin import MemoryOrigin
from tests.fakes.two_nodes import TwoNodes

FILES, BYTES = 40, 1000


@pytest.fixture
def nodes(tmp_path):
    objects = {f"f{i:02}": bytes([i]) * BYTES for i in range(FILES)}
    made = TwoNodes(tmp_path, MemoryOrigin(objects))
    yield made
    made.close()


def owned_by(nodes, node):
    """Paths whose chunk `node` owns, as both see it."""
    version = nodes.version
    paths = nodes.origin.objects
    cluster = nodes.one.cluster if node == "a" else nodes.two.cluster
    return [path for path in paths if cluster.is_ours(version, version.index.resolve(path), 0)]


def here(node):
    version = node.cache.versions.get()
    table = node.cache.store.table
    rows = {path: version.index.resolve(path) for path in node.cache.origin.objects}
    slots = {path: version.slots.first_slot(row) for path, row in rows.items()}
    return {path for path, slot in slots.items() if table.state(slot) == PRESENT}


async def read(node, paths):
    version = node.cache.versions.get()
    for path in paths:
        assert await node.cache.read(version, path) == node.cache.origin.objects[path]


async def eventually(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def run(nodes, test):
    async def both():
        async with nodes.one, nodes.two:
            task = asyncio.create_task(Gathering(nodes.b.cache.cache, nodes.two.cluster).run())
            try:
                await test()
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    asyncio.run(both())


def test_readers_set_the_pace_of_what_is_fetched_ahead(nodes):
    theirs, ours = owned_by(nodes, "a"), owned_by(nodes, "b")
    count = len(theirs) // (2 * gathering.AHEAD)
    assert count

    async def test():
        await read(nodes.a, theirs)
        requests = len(nodes.origin.fetched)
        await asyncio.sleep(3 * gathering.LOOK_SECONDS)
        assert here(nodes.b) == set()  # nobody reads there
        await read(nodes.b, ours[:count])
        await eventually(lambda: len(here(nodes.b)) == count + gathering.AHEAD * count)
        await asyncio.sleep(2 * gathering.LOOK_SECONDS)
        assert len(here(nodes.b)) == count + gathering.AHEAD * count
        assert len(nodes.origin.fetched) == requests + count
        assert nodes.b.cache.cache.counters.gathered_bytes == gathering.AHEAD * count * BYTES
        await read(nodes.b, theirs)
        assert len(nodes.origin.fetched) == requests + count

    run(nodes, test)


def test_what_the_neighbour_dropped_meanwhile_is_not_read_from_the_origin(nodes):
    theirs, ours = owned_by(nodes, "a"), owned_by(nodes, "b")

    async def test():
        await read(nodes.a, theirs)
        for path in theirs:
            nodes.a.cache.store.drop_file(nodes.version, nodes.version.index.resolve(path))
        requests = len(nodes.origin.fetched)
        await read(nodes.b, ours)
        await asyncio.sleep(3 * gathering.LOOK_SECONDS)
        assert here(nodes.b) == set(ours)
        assert len(nodes.origin.fetched) == requests + len(ours)

    run(nodes, test)


def test_who_joins_such_a_fetch_gets_the_bytes_the_usual_way_when_it_fails(nodes):
    (path, *_) = owned_by(nodes, "b")
    version = nodes.b.cache.versions.get()
    row = version.index.resolve(path)

    async def test():
        gate = asyncio.Event()

        async def fails_late(*_, **__):
            await gate.wait()
            raise PeerAbsent("it went meanwhile")

        cache = nodes.b.cache.cache
        given, member = nodes.two.peers.fetch, nodes.two.all["a"]
        nodes.two.peers.fetch = fails_late
        ahead = asyncio.create_task(cache.gather(version, row, 0, member))
        await asyncio.sleep(0.01)
        reader = asyncio.create_task(nodes.b.cache.read(version, path))
        await asyncio.sleep(0.01)
        nodes.two.peers.fetch = given
        gate.set()
        assert await reader == nodes.origin.objects[path]
        assert await ahead is False

    run(nodes, test)


def test_who_asks_just_as_such_a_fetch_has_failed_gets_the_bytes_too(nodes):
    (path, *_) = owned_by(nodes, "b")
    version = nodes.b.cache.versions.get()
    row = version.index.resolve(path)

    async def test():
        cache = nodes.b.cache.cache
        given, member = nodes.two.peers.fetch, nodes.two.all["a"]
        asking = []

        def ask():
            asking.append(asyncio.create_task(cache.ensure(version, row, 0)))

        async def fails(*_, **__):
            nodes.two.peers.fetch = given
            # Its turn comes after the last one of the fill that fails, before that one's callbacks.
            asyncio.get_running_loop().call_soon(ask)
            raise PeerAbsent("it went meanwhile")

        nodes.two.peers.fetch = fails
        assert await cache.gather(version, row, 0, member) is False
        assert await asking[0] is True
        assert here(nodes.b) == {path}

    run(nodes, test)


def test_a_large_chunk_is_passed_on_while_it_arrives(tmp_path):
    objects = {f"f{i}": random.Random(i).randbytes(2 << 20) for i in range(8)}
    nodes = TwoNodes(tmp_path, MemoryOrigin(objects))
    (theirs, *_), (ours, *_) = owned_by(nodes, "a"), owned_by(nodes, "b")
    row = nodes.version.index.resolve(theirs)
    slot = nodes.version.slots.first_slot(row)

    async def test():
        await asyncio.sleep(0.01)  # its turn begins with no byte asked for
        await read(nodes.b, [ours])
        nodes.origin.gate.clear()
        reading = asyncio.create_task(read(nodes.a, [theirs]))
        await eventually(lambda: (row, 0) in nodes.passed_on)
        assert nodes.a.cache.store.table.state(slot) == FILLING
        nodes.origin.gate.set()
        await reading
        await eventually(lambda: theirs in here(nodes.b))
        await read(nodes.b, [theirs])
        assert sorted(key for key, *_ in nodes.origin.fetched) == sorted([theirs, ours])

    run(nodes, test)
    nodes.close()


def test_nothing_is_evicted_for_it(tmp_path):
    objects = {f"f{i:02}": bytes([i]) * BYTES for i in range(FILES)}
    nodes = TwoNodes(tmp_path, MemoryOrigin(objects), quota=1 << 40)
    space = nodes.b.cache.store.space
    theirs, ours = owned_by(nodes, "a"), owned_by(nodes, "b")

    async def test():
        space.quota_bytes = int(FILES * BYTES / space.high) + 2  # fits, just
        await asyncio.sleep(0.01)  # its turn begins with no byte asked for
        await read(nodes.b, ours[:5])
        space.used_bytes += 30 * BYTES  # as if another version had them
        await read(nodes.a, theirs)
        await eventually(lambda: set(theirs) & here(nodes.b))
        await asyncio.sleep(3 * gathering.LOOK_SECONDS)
        assert set(ours[:5]) <= here(nodes.b)
        assert nodes.b.cache.store.evicted_bytes == 0
        assert space.used_bytes <= FILES * BYTES

    run(nodes, test)
    nodes.close()


def test_a_reader_who_joined_is_served_though_the_fetch_ahead_is_given_up(nodes):
    (path, *_) = owned_by(nodes, "a")
    version = nodes.b.cache.versions.get()
    row = version.index.resolve(path)

    async def test():
        await read(nodes.a, [path])
        gate, given, member = asyncio.Event(), nodes.two.peers.fetch, nodes.two.all["a"]

        async def late(*args, **how):
            await gate.wait()
            return await given(*args, **how)

        nodes.two.peers.fetch = late
        ahead = asyncio.create_task(nodes.b.cache.cache.gather(version, row, 0, member))
        await asyncio.sleep(0.01)
        reader = asyncio.create_task(nodes.b.cache.read(version, path))
        await asyncio.sleep(0.01)
        ahead.cancel()
        await asyncio.gather(ahead, return_exceptions=True)
        gate.set()
        assert await reader == nodes.origin.objects[path]

    run(nodes, test)


def test_what_is_given_up_no_longer_counts_as_under_way(nodes):
    theirs, ours = owned_by(nodes, "a"), owned_by(nodes, "b")

    async def test():
        ahead = Gathering(nodes.b.cache.cache, nodes.two.cluster)
        ahead._begin(nodes.b.cache.versions.get())
        await read(nodes.a, theirs)
        await read(nodes.b, ours[:2])
        before = ahead._left_bytes()
        assert await ahead._hear(nodes.b.cache.versions.get())
        ahead._start_all(nodes.b.cache.versions.get())
        assert ahead._left_bytes() < before
        await ahead._stop()  # none of them had a turn yet
        assert ahead._left_bytes() == before

    run(nodes, test)


def test_it_ends_also_when_it_is_cancelled_as_there_is_something_to_do(nodes):
    async def test():
        ahead = Gathering(nodes.b.cache.cache, nodes.two.cluster)
        task = asyncio.create_task(ahead.run())
        await asyncio.sleep(0.01)
        ahead._woken.set()
        task.cancel()
        async with asyncio.timeout(5):
            await asyncio.gather(task, return_exceptions=True)

    run(nodes, test)
