"""Leaving a cluster: hand what only we have to who will own it, then say that we may go.

The others are told which chunks to fetch from us, in batches; each does so as it would on a miss,
so nothing goes over its quota. What we own goes first: of the rest others have a copy.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cacheop.api.chunk import chunk_count, chunk_span
from cacheop.api.errors import CacheopError
from cacheop.api.table import PRESENT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from cache_worker.cluster import Cluster
    from cache_worker.store import Store
    from cache_worker.versions import Version
    from cache_worker.view import Member

log = logging.getLogger("cacheop.worker")

BATCH_CHUNKS = 64
PULL_SECONDS = 60.0
AT_ONCE = 4
ROWS_AT_A_TIME = 256


@dataclass(slots=True)
class Progress:
    """How far a drain is."""

    chunks: int = 0
    chunks_total: int = 0
    bytes: int = 0
    bytes_total: int = 0

    def report(self) -> dict[str, int]:
        """As docs/protocol.md has it."""
        return {
            "chunks": self.chunks,
            "chunks_total": self.chunks_total,
            "bytes": self.bytes,
            "bytes_total": self.bytes_total,
        }


@dataclass(frozen=True, slots=True)
class Held:
    """A chunk that is here."""

    to: Member
    """Its owner once we are gone."""
    row: int
    chunk: int
    length: int
    owned: bool
    """We own it if nobody drains: likely the only copy."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one member is to fetch from us."""

    to: Member
    version: str
    chunks: list[tuple[int, int]]
    bytes: int


class Drain:
    """One drain. Its own tasks end with `run`."""

    def __init__(self, store: Store, cluster: Cluster) -> None:
        self._store, self._cluster = store, cluster
        self.progress = Progress()

    async def run(self, seconds: float) -> dict[str, Any]:
        """Hand over for at most `seconds`. {"phase": "Drained"} or "Late" and how much is left."""
        deadline = time.monotonic() + seconds
        self._cluster.announce(draining=True)
        batches = await self._batches()
        self.progress.chunks_total = sum(len(batch.chunks) for batch in batches)
        self.progress.bytes_total = sum(batch.bytes for batch in batches)
        todo = iter(batches)
        workers = [asyncio.create_task(self._work(todo, deadline)) for _ in range(AT_ONCE)]
        try:
            await asyncio.wait(workers, timeout=max(0.0, deadline - time.monotonic()))
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        left = self.progress.chunks_total - self.progress.chunks
        return {**self.progress.report(), "phase": "Late" if left else "Drained", "left": left}

    async def _work(self, todo: Iterator[Batch], deadline: float) -> None:
        for batch in todo:
            meta = {"version": batch.version, "chunks": batch.chunks}
            seconds = min(PULL_SECONDS, deadline - time.monotonic())
            try:
                answer = await self._cluster.ask(batch.to, "pull", meta, max(0.1, seconds))
            except CacheopError as error:
                log.warning("%s took nothing: %s", batch.to.node, error)
                continue
            self.progress.chunks += int(answer["present"])
            if int(answer["present"]) == len(batch.chunks):
                self.progress.bytes += batch.bytes

    async def _batches(self) -> list[Batch]:
        """All that is here, by who is to have it: what we own first."""
        owned: list[Batch] = []
        copies: list[Batch] = []
        for version in self._store.versions.all():
            waiting: dict[tuple[bool, Member], list[Held]] = defaultdict(list)
            async for held in self._held(version):
                same = waiting[held.owned, held.to]
                same.append(held)
                if len(same) == BATCH_CHUNKS:
                    (owned if held.owned else copies).append(_batch(version, same))
                    del waiting[held.owned, held.to]
            for (ours, _), rest in waiting.items():
                (owned if ours else copies).append(_batch(version, rest))
        return owned + copies

    async def _held(self, version: Version) -> AsyncIterator[Held]:
        """The chunks of a version that are here and that somebody else is to have."""
        index, table = version.index, self._store.table
        for number, row in enumerate(version.slots.rows_by_slot()):
            size, first = index.size(row), version.slots.first_slot(row)
            for chunk, state in enumerate(table.states(first, chunk_count(size))):
                owner = self._cluster.owner(version, row, chunk) if state == PRESENT else None
                if owner is not None and owner.node != self._cluster.me:
                    owned = self._cluster.would_own(version, row, chunk)
                    yield Held(owner, row, chunk, chunk_span(size, chunk)[1], owned)
            if number % ROWS_AT_A_TIME == 0:
                await asyncio.sleep(0)


def _batch(version: Version, held: list[Held]) -> Batch:
    chunks = [(h.row, h.chunk) for h in held]
    return Batch(held[0].to, version.name, chunks, sum(h.length for h in held))
