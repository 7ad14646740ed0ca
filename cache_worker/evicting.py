"""Evict files by name, whatever the policy thinks of them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cacheop.api.chunk import chunk_count

if TYPE_CHECKING:
    from cache_worker.store import Store
    from cache_worker.versions import Version


@dataclass(slots=True)
class Evicted:
    """What evicting files by name did."""

    bytes: int = 0
    files: int = 0
    pinned_files: int = 0
    """Left alone: a Native mount shows them."""


async def evict_rows(store: Store, version: Version, rows: list[range]) -> Evicted:
    """Evict the files among `rows` that no Native mount shows. Lets others run in between."""
    result = Evicted()
    store.victims.look()
    for level in rows:
        for row in level:
            if version.index.is_directory(row):
                continue
            first = version.slots.first_slot(row)
            if store.victims.pins.holds(first):
                count = chunk_count(version.index.size(row))
                result.pinned_files += store.table.cached_bytes(first, count) > 0
                continue
            gone = store.drop_file(version, row)
            result.bytes += gone
            result.files += gone > 0
            if row % 256 == 0:
                await asyncio.sleep(0)
                store.victims.look()
    return result
