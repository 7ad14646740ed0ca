"""A Cache over real files and a MemoryOrigin, no sockets, and a reader that keeps its rules."""

import os
from concurrent.futures import ThreadPoolExecutor

from cache_worker.cache import Cache
from cache_worker.disk import Disk
from cache_worker.eviction import POLICIES
from cache_worker.space import Space
from cache_worker.store import Store
from cache_worker.version_files import map_file
from cache_worker.versions import Versions
from cacheop.api import names
from cacheop.api.chunk import chunk_span, chunks_of_span
from cacheop.api.table import PRESENT, STATE_MASK, ChunkTable


class NodeCache:
    """`close(clean=False)` is what a kill leaves behind."""

    def __init__(self, root, origin, *, quota=1 << 40, policy="LRU", disk=None):
        self.root, self.origin = root, origin
        self.pool = ThreadPoolExecutor(2)
        disk = disk or Disk()
        self.versions = Versions(root, disk)
        self.store = Store(self.versions, disk, Space(quota), POLICIES[policy](), self.pool)
        self.cache = Cache(self.store, lambda _mount_point: origin)
        self.table = ChunkTable(map_file(root / names.CHUNK_TABLE))

    def add_version(self):
        version = self.versions.add(self.origin.index(self.root))
        runs = version.slot_runs()
        self.store.table.use_slots(max(first + count for first, count in runs))
        return version

    def close(self, *, clean=True):
        self.pool.shutdown()
        self.versions.save()
        self.store.close(clean=clean)

    async def read(self, version, path, offset=0, length=None):
        """As a client reads: ask, then read the file by the rules of docs/architecture.md."""
        row = version.index.resolve(path)
        size = version.index.size(row)
        length = size - offset if length is None else max(0, min(length, size - offset))
        for _ in range(50):
            if self.table.is_complete(version.slots.first_slot(row)):
                data = self._pread(version.path(row), offset, length)
                if data is not None:
                    return data
            given = await self.cache.read(version, row, offset, length)
            if given is not None:
                return bytes(given)
            data = self._read_chunks(version, row, offset, length)
            if data is not None:
                return data
        raise AssertionError("evicted 50 times")

    def _pread(self, path, offset, length):
        try:
            fd = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            return os.pread(fd, length, offset)
        finally:
            os.close(fd)

    def _read_chunks(self, version, row, offset, length):
        first, size, parts = version.slots.first_slot(row), version.index.size(row), []
        for chunk in chunks_of_span(size, offset, length):
            before = self.table.state(first + chunk)
            start, chunk_bytes = chunk_span(size, chunk)
            begin, end = max(offset, start), min(offset + length, start + chunk_bytes)
            part = self._pread(version.path(row), begin, end - begin)
            if before & STATE_MASK != PRESENT or self.table.state(first + chunk) != before:
                return None
            parts.append(part)
        return b"".join(parts)
