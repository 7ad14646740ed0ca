import asyncio
import time

from cache_worker.expiring import Expiring
from cacheop.api.dataset import Cache
from tests.fakes.node_cache import NodeCache
from tests.fakes.origin import MemoryOrigin

FILES = {f"f{i}": bytes([i]) * 1000 for i in range(4)}


def test_what_was_not_read_for_longer_than_its_ttl_leaves(tmp_path):
    node = NodeCache(tmp_path, MemoryOrigin(FILES))
    version, table, now = node.add_version(), node.store.table, int(time.time())
    slots = [version.slots.first_slot(version.index.resolve(path)) for path in FILES]

    async def run():
        for path, data in FILES.items():
            assert await node.read(version, path) == data
        for slot, age in zip(slots, (0, 50, 150, 500), strict=True):
            table.used(slot, now - age, 1)
        expiring = Expiring(node.store, lambda: Cache(ttl_seconds=100))
        assert await expiring.expire(version, now, 100) == 2000
        assert [table.cached_bytes(slot, 1) for slot in slots] == [1000, 1000, 0, 0]
        assert await expiring.expire(version, now, 100) == 0
        for path, data in FILES.items():
            assert await node.read(version, path) == data

    asyncio.run(run())
    node.close()


def test_the_spec_says_whether_and_when(tmp_path):
    node = NodeCache(tmp_path, MemoryOrigin(FILES))
    version, specs = node.add_version(), [Cache()]
    slots = [version.slots.first_slot(version.index.resolve(path)) for path in FILES]

    async def held(spec, seconds):
        specs[0] = spec
        for path, data in FILES.items():
            assert await node.read(version, path) == data
        for slot in slots:
            node.store.table.used(slot, int(time.time()) - 5, 1)
        expiring = asyncio.create_task(Expiring(node.store, lambda: specs[0]).run())
        await asyncio.sleep(seconds)
        expiring.cancel()
        return node.store.space.used_bytes

    async def run():
        assert await held(Cache(), 0.2) == 4000
        assert await held(Cache(ttl_seconds=2, pin=True), 0.2) == 4000
        assert await held(Cache(ttl_seconds=60), 0.2) == 4000
        assert await held(Cache(ttl_seconds=2), 0.5) == 0

    asyncio.run(run())
    node.close()
