"""Files that nobody read for longer than spec.cache.ttl leave, even where there is room."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from cache_worker.evicting import evict_rows
from cache_worker.eviction.budget import is_expired
from cacheop.api.chunk import chunk_count

if TYPE_CHECKING:
    from collections.abc import Callable

    from cache_worker.store import Store
    from cache_worker.versions import Version
    from cacheop.api.dataset import Cache

log = logging.getLogger("cacheop.worker")

LOOK_SECONDS, LOOKS = 60.0, 20
"""Looked at so often, or so many times within a shorter ttl."""
ROWS_AT_A_TIME = 256


class Expiring:
    """Used on the worker's loop. What a Native mount shows, or `pin` keeps, never expires."""

    def __init__(self, store: Store, spec: Callable[[], Cache]) -> None:
        self._store, self._spec = store, spec

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            ttl = self._spec().ttl_seconds
            if ttl is not None and not self._spec().pin:
                for version in self._store.versions.all():
                    with version.used():
                        await self.expire(version, time.time(), ttl)
            await asyncio.sleep(min(LOOK_SECONDS, (ttl or LOOK_SECONDS * LOOKS) / LOOKS))

    async def expire(self, version: Version, now_seconds: float, ttl_seconds: float) -> int:
        """Evict what is too old; its bytes."""
        table, size, gone = self._store.table, version.index.size, 0
        for number, row in enumerate(version.slots.rows_by_slot()):
            if number % ROWS_AT_A_TIME == 0:
                await asyncio.sleep(0)
            first = version.slots.first_slot(row)
            if not is_expired(table.last_use(first)[0], now_seconds, ttl_seconds):
                continue
            if table.cached_bytes(first, chunk_count(size(row))):
                gone += (await evict_rows(self._store, version, [range(row, row + 1)])).bytes
        if gone:
            log.info("%d bytes left that were not read for %g s", gone, ttl_seconds)
        return gone
