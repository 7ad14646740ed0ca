"""How much of what this node has is its own to keep: added up over nodes, what the cluster has.

Counted by looking at every chunk, in small steps and only after something changed; the pauses are
long against the counting, so it never takes more than a few percent of the loop.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from cacheop.api.chunk import chunk_count

if TYPE_CHECKING:
    from cache_worker.cluster.cluster import Cluster
    from cache_worker.store import Store
    from cache_worker.versions import Version

ROWS_AT_A_TIME = 256
PAUSE_SECONDS = 1.0
PAUSE_FACTOR = 20


class Census:
    """`owned_bytes` of the current version, as of the last count. Runs on the worker's loop."""

    def __init__(self, store: Store, cluster: Cluster) -> None:
        self.owned_bytes = 0
        self._store, self._cluster = store, cluster
        self._seen: object = None

    async def run(self) -> None:
        """Count until cancelled."""
        while True:
            started = time.monotonic()
            version = self._store.versions.current()
            state = self._state(version)
            if version is not None and state != self._seen:
                with version.used():
                    self.owned_bytes = await self._count(version)
                self._seen = state
            taken = time.monotonic() - started
            await asyncio.sleep(max(PAUSE_SECONDS, PAUSE_FACTOR * taken))

    def _state(self, version: Version | None) -> object:
        """The same again: nothing to count. What was evicted may have come back, so both count."""
        store = self._store
        name = version.name if version else ""
        return name, self._cluster.view.epoch, store.space.used_bytes, store.evicted_bytes

    async def _count(self, version: Version) -> int:
        table, index, total = self._store.table, version.index, 0
        for number, row in enumerate(version.slots.rows_by_slot()):
            if number % ROWS_AT_A_TIME == 0:
                await asyncio.sleep(0)
            first, count = version.slots.first_slot(row), chunk_count(index.size(row))
            if count == 1:
                length = table.cached_bytes(first, 1)
                total += length if length and self._cluster.is_ours(version, row, 0) else 0
            elif table.cached_bytes(first, count):
                owned = self._cluster.owned(version, row)
                total += sum(table.cached_bytes(first + chunk, 1) for chunk in owned)
        return total
