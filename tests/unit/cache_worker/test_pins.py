"""What a Native mount shows stays, whoever wants it gone; what is damaged is replaced."""

import asyncio
import fcntl
import os
import random
from contextlib import contextmanager

import pytest

from cache_worker.evicting import evict_rows
from cacheop.api.errors import UserError
from cacheop.api.index import ROOT
from tests.fakes.node_cache import NodeCache
from tests.fakes.origin import MemoryOrigin


def files(count, seed=0, length=1000):
    return {f"d{i % 3}/f{i}": random.Random(seed + i).randbytes(length) for i in range(count)}


@contextmanager
def pinned(version):
    """As the holder does for a Native mount."""
    fd = os.open(version.data, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    try:
        yield
    finally:
        os.close(fd)


def fill(node, version, paths):
    async def run():
        for path in paths:
            assert await node.read(version, path) == node.origin.objects[path]

    asyncio.run(run())


def on_disk(version):
    return {
        path: open(f"{version.data}/{path}", "rb").read()
        for row in range(version.index.rows)
        if not version.index.is_directory(row)
        if os.path.exists(f"{version.data}/{(path := version.index.path(row))}")
    }


@pytest.fixture
def node(tmp_path):
    node = NodeCache(tmp_path, MemoryOrigin(files(40)), quota=100_000)
    yield node
    node.close()


def test_pressure_takes_only_what_is_not_pinned(node):
    old = node.add_version()
    shared = dict(node.origin.objects)
    fill(node, old, shared)
    more = {f"new/{i}": random.Random(900 + i).randbytes(1000) for i in range(40)}
    node.origin.objects.update(more)
    new = node.add_version()
    fill(node, new, more)
    with pinned(old):
        assert node.store.evict(1 << 30) == 40_000  # all that is only in the new version
        assert on_disk(old) == shared
        fill(node, new, shared)  # what both have is kept in both
    assert node.store.evict(1 << 30) == 40_000
    assert on_disk(old) == {}


def test_a_quota_that_pins_make_unreachable_is_said_and_read_through(node):
    version = node.add_version()
    fill(node, version, node.origin.objects)
    with pinned(version):
        node.store.space.quota_bytes = 20_000
        assert node.store.evict(node.store.space.above_high()) == 0
        assert node.store.pinned_above_quota() == {version.name}
        node.origin.objects["more"] = bytes(500)
        new = node.add_version()
        fill(node, new, ["more"])
        assert node.store.space.used_bytes == 40_000
        assert node.cache.counters.read_bytes["through"] == 500
        assert len(on_disk(version)) == 40
    assert node.store.evict(node.store.space.above_high()) >= 20_000
    assert node.store.pinned_above_quota() == frozenset()
    fill(node, new, ["more"])
    assert "more" in on_disk(new)


def test_evicting_by_name_leaves_what_is_pinned_and_counts_it(node):
    version = node.add_version()
    fill(node, version, list(node.origin.objects)[:7])
    rows = version.index.subtree(ROOT)
    with pinned(version):
        found = asyncio.run(evict_rows(node.store, version, rows))
        assert (found.bytes, found.files, found.pinned_files) == (0, 0, 7)
    found = asyncio.run(evict_rows(node.store, version, rows))
    assert (found.bytes, found.files, found.pinned_files) == (7000, 7, 0)


def test_a_pinned_version_is_not_dropped(node):
    old = node.add_version()
    node.origin.objects["more"] = b"1"
    node.add_version()
    old.last_use = -1e9
    with pinned(old):
        assert node.versions.is_in_use(old.name)
        assert node.versions.droppable(1) == []
        with pytest.raises(UserError, match="in use"):
            node.versions.begin_drop(old.name)
    assert node.versions.droppable(1) == [old.name]
    node.versions.begin_drop(old.name)


def test_looking_keeps_no_lock(node):
    version = node.add_version()
    for _ in range(3):
        assert not node.versions.is_pinned(version.name)
        with pinned(version):  # LOCK_NB: nobody else has it
            assert node.versions.is_pinned(version.name)


def test_a_damaged_file_is_replaced_also_when_it_is_pinned(tmp_path):
    node = NodeCache(tmp_path, MemoryOrigin(files(3)))
    version = node.add_version()
    fill(node, version, node.origin.objects)
    node.close(clean=False)
    path = f"{version.data}/d0/f0"
    with open(path, "r+b") as file:
        file.write(b"damage")
    node = NodeCache(tmp_path, node.origin)
    version = node.versions.get()
    with pinned(version):
        fill(node, version, node.origin.objects)
        assert on_disk(version) == node.origin.objects
    assert node.store.errors["verify"] == 1
    node.close()


def test_much_pinned_costs_an_eviction_little(node):
    """The few files that may go are found among many that may not."""
    version = node.add_version()
    fill(node, version, node.origin.objects)
    node.origin.objects["zz"] = bytes(10)
    new = node.add_version()
    fill(node, new, ["zz"])
    with pinned(version):
        assert node.store.evict(1) == 10
