"""What a worker does in the background to keep its store in order."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from cacheop.api.errors import CacheopError

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from cache_worker.indexing import Indexing
    from cache_worker.store import Store

log = logging.getLogger("cacheop.worker")

SPACE_SECONDS = 1.0
DROP_SECONDS = 10.0
VERIFY_WINDOW = 4096


class Upkeep:
    """Used on the worker's loop; its tasks are the worker's."""

    def __init__(self, store: Store, indexing: Indexing) -> None:
        self._store, self._indexing = store, indexing
        self.verifying = not store.table.was_clean
        """Whether chunks are still looked at after an unclean stop."""

    def tasks(self) -> list[Coroutine[Any, Any, None]]:
        """What runs until it is cancelled, or done."""
        always = [self._watch_space(), self._drop_old()]
        return [*always, self._verify()] if self.verifying else always

    async def _drop_old(self) -> None:
        while True:
            try:
                await self._indexing.drop_old()
            except (CacheopError, OSError) as error:
                log.warning("an old version is not dropped yet: %s", error)
            await asyncio.sleep(DROP_SECONDS)

    async def _watch_space(self) -> None:
        while True:
            self._store.look_at_disk()
            excess = self._store.space.above_high()
            if excess:
                self._store.evict(excess)
            await asyncio.sleep(SPACE_SECONDS)

    async def _verify(self) -> None:
        """Check what the table says against the bytes, at low priority."""
        store, table = self._store, self._store.table
        for window in range(0, table.used_slots, VERIFY_WINDOW):
            count = min(VERIFY_WINDOW, table.used_slots - window)
            for slot in store.suspects(window, count):
                owner = store.victims.owner(slot)
                if owner is None:
                    store.forget([(slot, 1)])
                    continue
                version, row = owner
                with version.used():
                    await store.verify(version, row, slot - version.slots.first_slot(row))
                await asyncio.sleep(0)
        self.verifying = False
        log.info("verified the cache after an unclean stop")
