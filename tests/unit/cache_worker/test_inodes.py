"""One content, one inode: over versions that come and go, kills and lost files."""

import asyncio
import errno
import os
import random
import threading

import pytest

from cache_worker.disk import Disk
from cache_worker.mounts.stored import StoredVersion
from cache_worker.versions import IDLE_SECONDS
from cacheop.api import names
from cacheop.api.errors import StoreError, UserError
from cacheop.api.table import COMPLETE
from cacheop.client.store import LocalStore
from tests.fakes.disk import FailingDisk
from tests.fakes.node_cache import NodeCache
from tests.fakes.origin import MemoryOrigin

MIB = 1 << 20


def some_bytes(seed, length):
    return random.Random(seed).randbytes(length)


@pytest.fixture
def origin():
    return MemoryOrigin({"big": some_bytes(1, 17 * MIB + 5), "small": some_bytes(2, 1000)})


def changed(node, origin, number):
    """Another version; `big` stays as it is."""
    origin.objects["other"] = some_bytes(number, 500)
    return node.add_version()


def drop(node, version):
    async def run():
        await node.store.hand_over(version)

    asyncio.run(run())
    node.versions.begin_drop(version.name)
    node.versions.finish_drop(version.name)
    node.versions.dropped(version.name)


def test_a_half_filled_file_outlives_the_version_that_began_it(tmp_path, origin):
    node = NodeCache(tmp_path, origin)
    first = node.add_version()
    data = origin.objects["big"]
    assert asyncio.run(node.read(first, "big", 9 * MIB, 100)) == data[9 * MIB : 9 * MIB + 100]
    second = changed(node, origin, 7)
    drop(node, first)
    origin.fetched.clear()
    assert asyncio.run(node.read(second, "big")) == data
    assert sum(n for _, _, n in origin.fetched) == len(data) - 8 * MIB
    node.close()


def test_what_nobody_touched_since_is_kept_for_the_next_version(tmp_path, origin):
    node = NodeCache(tmp_path, origin)
    first = node.add_version()
    for path in ("big", "small"):
        asyncio.run(node.read(first, path))
    used = node.store.space.used_bytes
    second = changed(node, origin, 7)
    drop(node, first)
    third = changed(node, origin, 8)
    drop(node, second)
    origin.fetched.clear()
    for path in ("big", "small"):
        assert asyncio.run(node.read(third, path)) == origin.objects[path]
    assert origin.fetched == []
    assert node.store.space.used_bytes == used
    node.close()


def test_a_new_inode_holds_nothing(tmp_path, origin):
    """Somebody deletes a half-filled file: its flags must not speak for the next one."""
    node = NodeCache(tmp_path, origin)
    version = node.add_version()
    data = origin.objects["big"]
    asyncio.run(node.read(version, "big", 9 * MIB, 100))
    os.unlink(version.path(version.index.resolve("big")))

    async def run():
        row = version.index.resolve("big")
        await node.cache.ensure(version, row, 0)
        assert not node.store.is_present(version, row, 1)
        assert await node.read(version, "big") == data

    asyncio.run(run())
    assert node.store.space.used_bytes == len(data)
    node.close()


def test_a_version_is_not_dropped_while_one_of_its_files_is_filled(tmp_path, origin):
    node = NodeCache(tmp_path, origin)
    old = node.add_version()
    changed(node, origin, 7)

    async def run():
        origin.gate.clear()
        reader = asyncio.create_task(node.read(old, "big", 0, 10))
        await asyncio.sleep(0.01)
        reader.cancel()  # nobody waits for it any more, but it is still written
        await asyncio.sleep(0.01)
        with pytest.raises(UserError, match="in use"):
            node.versions.begin_drop(old.name)
        origin.gate.set()
        assert await node.cache.ensure(old, old.index.resolve("big"), 0) is True
        await asyncio.sleep(0)

    asyncio.run(run())
    node.versions.begin_drop(old.name)
    node.close()


@pytest.mark.parametrize("fault", ["unlink fails", "killed before the unlink"])
def test_a_file_that_readers_may_hold_is_never_punched(tmp_path, origin, fault):
    """Also when it could not be unlinked the first time: who holds it keeps the right bytes."""
    disk = FailingDisk()
    node = NodeCache(tmp_path, origin, disk=disk)
    version = node.add_version()
    data = origin.objects["big"]
    assert asyncio.run(node.read(version, "big")) == data
    row = version.index.resolve("big")
    fd = os.open(version.path(row), os.O_RDONLY)
    disk.fail["STORE:UNLINK"] = errno.EIO
    node.store.drop_file(version, row)
    disk.fail.clear()
    if fault != "unlink fails":
        node.close(clean=False)
        node = NodeCache(tmp_path, origin, disk=disk)
        version = node.versions.get()
    assert asyncio.run(node.read(version, "big", 0, 5)) == data[:5]
    node.store.drop_file(version, row)
    assert os.pread(fd, len(data), 0) == data
    os.close(fd)
    assert asyncio.run(node.read(version, "big")) == data
    assert node.store.table.file_state(version.slots.first_slot(row)) == COMPLETE
    node.close()


class WatchedDisk(Disk):
    """Calls `written` after each write, on the thread that wrote."""

    written = None

    def write_at(self, label, fd, data, offset):
        super().write_at(label, fd, data, offset)
        if self.written:
            self.written()


def test_a_file_dropped_while_it_is_written_is_not_flagged(tmp_path, origin):
    """Left FORMER by a kill, so it is unlinked, not punched, while another chunk is on its way."""
    disk = WatchedDisk()
    node = NodeCache(tmp_path, origin, disk=disk)
    version = node.add_version()
    row = version.index.resolve("big")
    data = origin.objects["big"]
    asyncio.run(node.read(version, "big", 9 * MIB, 5))
    node.store.table.former(version.slots.first_slot(row))

    async def run():
        loop = asyncio.get_running_loop()
        dropped = threading.Event()

        def drop_it():
            node.store.drop_file(version, row)
            dropped.set()

        disk.written = lambda: (loop.call_soon_threadsafe(drop_it), dropped.wait(10))
        found = await node.cache.ensure(version, row, 0)
        disk.written = None
        assert found == data[: 8 * MIB]  # the reader gets it nevertheless
        assert not node.store.is_present(version, row, 0)
        assert await node.read(version, "big") == data

    asyncio.run(run())
    node.close()


@pytest.mark.parametrize("reader", ["client", "mount"])
def test_a_version_stays_as_long_as_somebody_has_it_open(tmp_path, origin, reader):
    """Also a reader that the worker does not know of, as after a restart."""
    node = NodeCache(tmp_path, origin)
    old = node.add_version()
    changed(node, origin, 7)
    if reader == "client":
        bound = {
            "index": names.index_path(old.name),
            "slots": names.slots_path(old.name),
            "table": names.CHUNK_TABLE,
            "data": names.data_path(old.name),
        }
        held = LocalStore(tmp_path, bound)
    else:
        held = StoredVersion(tmp_path, old.name, [].append)
    assert node.versions.is_in_use(old.name)
    with pytest.raises(UserError, match="in use"):
        node.versions.begin_drop(old.name)
    del held
    assert not node.versions.is_in_use(old.name)
    drop(node, old)
    with pytest.raises(StoreError):
        StoredVersion(tmp_path, old.name, [].append)
    node.close()


def test_a_version_used_a_moment_ago_is_not_dropped(tmp_path, origin):
    node = NodeCache(tmp_path, origin)
    old = node.add_version()
    changed(node, origin, 7)
    assert node.versions.droppable(1) == []
    old.last_use -= IDLE_SECONDS
    assert node.versions.droppable(1) == [old.name]
    node.close()
