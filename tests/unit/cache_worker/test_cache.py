import asyncio
import errno
import os
import random

import pytest

from cache_worker import tablefile
from cache_worker.evicting import evict_rows
from cache_worker.flow import Rate
from cache_worker.load import Load
from cacheop.api.errors import OriginChanged, OriginError, SuspendedError
from cacheop.api.table import COMPLETE
from tests.fakes.disk import FailingDisk
from tests.fakes.node_cache import NodeCache
from tests.fakes.origin import MemoryOrigin

MIB = 1 << 20


def some_bytes(seed, length):
    return random.Random(seed).randbytes(length)


@pytest.fixture
def origin():
    return MemoryOrigin(
        {
            "small": some_bytes(1, 1000),
            "empty": b"",
            "dir/a": some_bytes(2, 70_000),
            "dir/b": some_bytes(3, 800_000),
            "big": some_bytes(4, 17 * MIB + 5),
        }
    )


def test_whole_files_and_spans_are_the_origins_bytes(tmp_path, origin):
    node = NodeCache(tmp_path, origin)
    version = node.add_version()

    async def run():
        for path, data in origin.objects.items():
            assert await node.read(version, path) == data
            assert await node.read(version, path, 500, 100) == data[500:600]
        span = await node.read(version, "big", 8 * MIB - 10, 20)
        assert span == origin.objects["big"][8 * MIB - 10 : 8 * MIB + 10]

    asyncio.run(run())
    assert node.cache.counters.origin_bytes == sum(map(len, origin.objects.values()))
    node.close()


def test_a_hundred_readers_of_one_chunk_are_one_request(tmp_path, origin):
    node = NodeCache(tmp_path, origin)
    version = node.add_version()

    async def run():
        origin.gate.clear()
        reads = [asyncio.create_task(node.read(version, "dir/a")) for _ in range(100)]
        await asyncio.sleep(0.01)
        reads[0].cancel()  # a reader that goes away stops nobody's fill
        origin.gate.set()
        found = await asyncio.wait_for(asyncio.gather(*reads[1:]), 10)
        assert set(found) == {origin.objects["dir/a"]}

    asyncio.run(run())
    assert len(origin.fetched) == 1
    node.close()


def test_an_error_of_the_origin_reaches_the_reader_and_takes_no_room(tmp_path, origin):
    node = NodeCache(tmp_path, origin)
    version = node.add_version()
    origin.errors["small"] = OriginError("broken")
    origin.objects["dir/a"] = b"another object now"

    async def run():
        with pytest.raises(OriginError, match="broken"):
            await node.read(version, "small")
        with pytest.raises(OriginChanged):
            await node.read(version, "dir/a")
        del origin.errors["small"]
        assert await node.read(version, "small") == origin.objects["small"]

    asyncio.run(run())
    assert node.store.space.reserved_bytes == 0
    assert node.store.space.used_bytes == 1000
    node.close()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_broken_disk_loses_no_read(tmp_path, origin, code):
    disk = FailingDisk()
    node = NodeCache(tmp_path, origin, disk=disk)
    version = node.add_version()

    async def run():
        disk.fail["STORE:WRITE"] = code
        for path, data in origin.objects.items():
            assert await node.read(version, path) == data
        assert os.strerror(code) in node.store.fault()
        assert node.store.errors["write"] >= 1
        disk.fail.clear()
        node.store._fault_until = 0
        for path, data in origin.objects.items():
            assert await node.read(version, path) == data
        assert node.store.table.file_state(version.slots.first_slot(0)) == COMPLETE

    asyncio.run(run())
    assert node.store.space.reserved_bytes == 0
    node.close()


def test_what_does_not_fit_is_read_by_range_not_whole(tmp_path, origin):
    node = NodeCache(tmp_path, origin, quota=100, policy="NoEvict")
    version = node.add_version()
    span = asyncio.run(node.read(version, "big", 3 * MIB, 10))
    assert span == origin.objects["big"][3 * MIB : 3 * MIB + 10]
    assert origin.fetched == [("big", 3 * MIB, 10)]
    node.close()


def test_lru_keeps_to_the_quota_and_the_bytes_stay_right(tmp_path):
    files = {f"d{i % 7}/f{i}": some_bytes(i, 5000 + i) for i in range(200)}
    origin = MemoryOrigin(files)
    quota = 200_000
    node = NodeCache(tmp_path, origin, quota=quota)
    version = node.add_version()

    async def run():
        order = list(files) * 3
        random.Random(7).shuffle(order)
        for path in order:
            assert await node.read(version, path) == files[path]
            assert node.store.space.used_bytes <= quota

    asyncio.run(run())
    on_disk = sum(f.stat().st_size for f in (tmp_path / "data").rglob("*") if f.is_file())
    assert on_disk == node.store.space.used_bytes
    assert node.store.evicted_bytes > 0
    node.close()


def test_suspended_cached_reads_go_on_and_others_fail(tmp_path, origin):
    node = NodeCache(tmp_path, origin)
    version = node.add_version()

    async def run():
        await node.read(version, "small")
        node.cache.suspended = True
        assert await node.read(version, "small") == origin.objects["small"]
        with pytest.raises(SuspendedError):
            await node.read(version, "dir/b")

    asyncio.run(run())
    assert len(origin.fetched) == 1
    node.close()


def test_after_a_kill_every_chunk_is_verified_before_its_first_use(tmp_path, origin):
    node = NodeCache(tmp_path, origin)
    version = node.add_version()
    asyncio.run(_read_all(node, version, origin))
    node.close(clean=False)
    rotten = tmp_path / "data" / version.name / "dir" / "a"
    data = bytearray(rotten.read_bytes())
    data[500] ^= 1
    rotten.write_bytes(data)

    origin.fetched.clear()
    node = NodeCache(tmp_path, origin)
    version = node.versions.get()
    assert not node.store.table.was_clean
    assert not node.table.is_complete(version.slots.first_slot(version.index.resolve("dir/a")))
    asyncio.run(_read_all(node, version, origin))
    assert [key for key, _, _ in origin.fetched] == ["dir/a"]  # the rest was good
    node.close()


@pytest.mark.parametrize("turns", range(5))
def test_a_chunk_verified_while_its_reader_was_on_the_way_is_not_fetched(tmp_path, origin, turns):
    node = NodeCache(tmp_path, origin)
    asyncio.run(_read_all(node, node.add_version(), origin))
    node.close(clean=False)
    node = NodeCache(tmp_path, origin)
    version = node.versions.get()
    row = version.index.resolve("small")
    origin.fetched.clear()

    async def run():
        reader = asyncio.create_task(node.read(version, "small"))
        for _ in range(turns):
            await asyncio.sleep(0)
        assert await node.store.verify(version, row, 0)
        assert await reader == origin.objects["small"]

    asyncio.run(run())
    assert origin.fetched == []
    node.close()


def test_a_clean_stop_needs_no_verifying(tmp_path, origin):
    node = NodeCache(tmp_path, origin)
    asyncio.run(_read_all(node, node.add_version(), origin))
    used = node.store.space.used_bytes
    node.close()
    node = NodeCache(tmp_path, origin)
    assert node.store.table.was_clean
    assert node.store.space.used_bytes == used
    assert all(
        node.table.is_complete(node.versions.get().slots.first_slot(row))
        for row in range(node.versions.get().index.rows)
        if not node.versions.get().index.is_directory(row)
    )
    node.close()


def test_what_was_not_flushed_is_believed_until_the_next_boot(tmp_path, origin):
    disk = FailingDisk()
    node = NodeCache(tmp_path, origin, disk=disk)
    asyncio.run(_read_all(node, node.add_version(), origin))
    disk.fail["TABLE:SYNC"] = errno.EIO
    node.close()
    table = tmp_path / "chunks"
    with table.open("rb") as file:
        header = file.read(4096)
    node = NodeCache(tmp_path, origin)
    assert node.store.table.was_clean
    node.close(clean=False)
    with table.open("r+b") as file:  # the header as it was, but from another boot of the machine
        file.write(header.replace(tablefile.boot_id(), bytes(16)))
    node = NodeCache(tmp_path, origin)
    assert not node.store.table.was_clean
    asyncio.run(_read_all(node, node.versions.get(), origin))
    node.close()


def test_versions_share_what_did_not_change(tmp_path):
    files = {f"d/{i:03}": some_bytes(i, 10_000) for i in range(100)}
    origin = MemoryOrigin(files)
    node = NodeCache(tmp_path, origin)
    old = node.add_version()
    asyncio.run(_read_all(node, old, origin))
    before = dict(origin.objects)
    for i in range(5):
        origin.objects[f"d/{i:03}"] = some_bytes(1000 + i, 10_000)
    new = node.add_version()
    origin.fetched.clear()

    async def run():
        await _read_all(node, new, origin)
        assert sum(n for _, _, n in origin.fetched) == 50_000
        # evicting in one version never harms the other
        await evict_rows(node.store, new, new.index.subtree(-1))
        assert node.store.space.used_bytes == 50_000  # the old version's five changed files
        for path in list(before)[:5]:
            assert await node.read(old, path) == before[path]
        await _read_all(node, new, origin)
        origin.objects.update(before)
        for path, data in before.items():
            assert await node.read(old, path) == data

    asyncio.run(run())
    shared = [tmp_path / "data" / v.name / "d" / "050" for v in (old, new)]
    assert shared[0].stat().st_ino == shared[1].stat().st_ino
    node.close()


def test_a_deleted_file_behind_our_back_is_fetched_again(tmp_path, origin):
    node = NodeCache(tmp_path, origin)
    version = node.add_version()
    asyncio.run(_read_all(node, version, origin))
    (tmp_path / "data" / version.name / "dir" / "b").unlink()
    asyncio.run(_read_all(node, version, origin))
    node.close()


def test_load_is_complete_only_when_every_chunk_is_there(tmp_path, origin):
    node = NodeCache(tmp_path, origin)
    version = node.add_version()
    origin.errors["dir/b"] = OriginError("broken")

    async def load(paths):
        rows = [r for p in paths for r in version.index.subtree(version.index.resolve(p))]
        return await Load(node.cache, version, rows, Rate(None)).run()

    report = asyncio.run(load([""]))
    assert report["phase"] == "Failed"
    assert [f["path"] for f in report["failed"]] == ["dir/b"]
    assert report["files"] == 4
    del origin.errors["dir/b"]
    origin.fetched.clear()
    report = asyncio.run(load(["dir", "big"]))
    assert report["phase"] == "Complete"
    assert report["bytes"] == report["bytes_total"]
    assert [key for key, _, _ in origin.fetched] == ["dir/b"]
    node.close()


def test_a_load_beyond_the_quota_says_so(tmp_path, origin):
    node = NodeCache(tmp_path, origin, quota=5 * MIB)
    version = node.add_version()
    rows = version.index.subtree(-1)
    report = asyncio.run(Load(node.cache, version, rows, Rate(None)).run())
    assert report["phase"] == "Failed"
    assert any("quota" in failed["error"] for failed in report["failed"])
    node.close()


def test_a_load_keeps_to_its_own_limit(tmp_path, origin):
    node = NodeCache(tmp_path, origin)
    version = node.add_version()
    whole = sum(len(data) for data in origin.objects.values())

    async def seconds(limit):
        load = Load(node.cache, version, version.index.subtree(-1), Rate(None))
        if limit:
            load.limit(limit)
        began = asyncio.get_running_loop().time()
        assert (await load.run())["phase"] == "Complete"
        return asyncio.get_running_loop().time() - began

    # The last chunk begins when the rate allows for all before it.
    largest = min(max(map(len, origin.objects.values())), 8 * MIB)
    assert asyncio.run(seconds(whole)) >= 0.9 * (whole - largest) / whole
    node.close()


async def _read_all(node, version, origin):
    for path, data in origin.objects.items():
        assert await node.read(version, path) == data


def test_a_quota_that_holds_nothing_for_long_is_no_error(tmp_path, origin):
    """A file that fills the quota above the high mark is evicted before anybody could read it."""
    node = NodeCache(tmp_path, origin, quota=70_000)
    version = node.add_version()
    row = version.index.resolve("dir/a")
    found = asyncio.run(node.cache.read(version, row, 5, 100, inline=True))
    assert bytes(found) == origin.objects["dir/a"][5:105]
    node.close()


def test_a_file_changed_at_the_origin_mid_read_is_never_mixed(tmp_path, origin):
    """Old bytes for what is here, ESTALE for what is not; and for a span over both."""
    node = NodeCache(tmp_path, origin)
    version = node.add_version()
    old = origin.objects["big"]

    async def run():
        assert await node.read(version, "big", 0, 100) == old[:100]
        origin.objects["big"] = some_bytes(5, len(old))
        for offset, length in ((8 * MIB, 10), (8 * MIB - 5, 10), (0, None)):
            with pytest.raises(OriginChanged) as caught:
                await node.read(version, "big", offset, length)
            assert caught.value.errno == errno.ESTALE
        assert await node.read(version, "big", MIB, 100) == old[MIB : MIB + 100]

    asyncio.run(run())
    new = node.add_version()
    assert asyncio.run(node.read(new, "big")) == origin.objects["big"]
    assert asyncio.run(node.read(version, "big", 0, 100)) == old[:100]
    node.close()
