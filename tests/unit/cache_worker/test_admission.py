"""The store asks its policy about every newcomer: real files, a real table."""

import asyncio
import random

import pytest

from cache_worker.reading import Reading
from tests.fakes.node_cache import NodeCache
from tests.fakes.origin import MemoryOrigin

FILES, LENGTH = 60, 10_000
PATHS = [f"f{i:02d}" for i in range(FILES)]


@pytest.fixture
def node(tmp_path):
    objects = {path: random.Random(path).randbytes(LENGTH) for path in PATHS}
    quota = FILES * LENGTH // 2 * 100 // 95 + 100  # half fits below the high mark
    node = NodeCache(tmp_path, MemoryOrigin(objects), quota=quota, policy="Auto")
    yield node
    node.close()


def epochs(node, version, count, seed):
    """The bytes that each epoch took from the origin."""
    reading, dice, paths = Reading(node.store.policy), random.Random(seed), list(PATHS)
    found = []

    async def run():
        for _ in range(count):
            before = node.cache.counters.origin_bytes
            dice.shuffle(paths)
            for path in paths:
                row = version.index.resolve(path)
                reading.read("job", "", version, row, 0, LENGTH)
                assert await node.read(version, path) == node.origin.objects[path]
            found.append(node.cache.counters.origin_bytes - before)

    asyncio.run(run())
    return found


def test_half_the_files_fit_and_half_the_reads_hit(node):
    found = epochs(node, node.add_version(), 6, 1)
    assert found[0] == FILES * LENGTH
    for later in found[1:]:
        assert later <= FILES * LENGTH * 0.53
    assert node.store.evicted_bytes <= FILES * LENGTH * 0.1


def test_what_no_version_has_that_is_read_makes_room(node):
    old = node.add_version()
    epochs(node, old, 2, 1)
    node.origin.objects = {path: random.Random(f"new {path}").randbytes(LENGTH) for path in PATHS}
    new = node.add_version()
    found = epochs(node, new, 3, 2)
    assert found[-1] <= FILES * LENGTH * 0.53


def test_a_part_of_what_is_not_admitted_costs_no_more_than_the_part(node):
    version = node.add_version()
    epochs(node, version, 2, 1)
    rows = {version.index.resolve(path): path for path in PATHS}
    row = next(row for row in rows if not node.store.is_present(version, row, 0))
    absent = rows[row]
    Reading(node.store.policy).read("job", "", version, row, 100, 50)
    before = node.cache.counters.origin_bytes
    data = asyncio.run(node.read(version, absent, 100, 50))
    assert data == node.origin.objects[absent][100:150]
    assert node.cache.counters.origin_bytes - before == 50
