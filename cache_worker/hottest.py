"""The files of a version that are read most, as far as reads are told of."""

from __future__ import annotations

import asyncio
import heapq
from typing import TYPE_CHECKING, Any

from cacheop.api.table import COMPLETE

if TYPE_CHECKING:
    from cache_worker.store import Store
    from cache_worker.versions import Version


async def hottest(store: Store, version: Version, count: int) -> list[dict[str, Any]]:
    """[{path, reads, cached}], the most read first. In a thread: it looks at every file."""
    return await asyncio.to_thread(_hottest, store, version, count)


def _hottest(store: Store, version: Version, count: int) -> list[dict[str, Any]]:
    table, first = store.table, version.slots.first_slot

    def reads(row: int) -> int:
        return table.last_use(first(row))[1]

    rows = heapq.nlargest(count, version.slots.rows_by_slot(), key=reads)
    return [
        {
            "path": version.index.path(row),
            "reads": reads(row),
            "cached": table.file_state(first(row)) == COMPLETE,
        }
        for row in rows
        if reads(row)
    ]
