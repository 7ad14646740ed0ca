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

    from cache_worker.cluster.cluster import Cluster
    from cache_worker.cluster.view import Member
    from cache_worker.store import Store
    from cache_worker.versions import Version

log = logging.getLogger("cacheop.worker")

BATCH_CHUNKS = 64
PULL_SECONDS = 60.0
AT_ONCE = 4
ROWS_AT_A_TIME = 256
ROUNDS = 4
AGAIN_SECONDS = 2.0


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

    version: Version
    row: int
    chunk: int
    length: int
    owned: bool
    """We own it if nobody drains: likely the only copy."""


class Drain:
    """One drain. Its own tasks end with `run`."""

    def __init__(self, store: Store, cluster: Cluster) -> None:
        self._store, self._cluster = store, cluster
        self.progress = Progress()

    async def run(self, seconds: float) -> dict[str, Any]:
        """Hand over for at most `seconds`. {"phase": "Drained"} or "Late" and how much is left."""
        deadline = time.monotonic() + seconds
        self._cluster.announce(draining=True)
        held = [chunk async for chunk in self._held()]
        held.sort(key=lambda chunk: not chunk.owned)
        self.progress.chunks_total = len(held)
        self.progress.bytes_total = sum(chunk.length for chunk in held)
        for _ in range(ROUNDS):
            held = await self._round(held, deadline)
            if not held or time.monotonic() + AGAIN_SECONDS > deadline:
                break
            await asyncio.sleep(
                AGAIN_SECONDS
            )  # who took nothing may be gone, or have room, by then
        phase = "Late" if held else "Drained"
        return {**self.progress.report(), "phase": phase, "left": len(held)}

    async def _round(self, held: list[Held], deadline: float) -> list[Held]:
        """Offer each chunk to its owner once; what was not taken."""
        left: list[Held] = []
        todo = iter(self._batches(held))
        workers = [asyncio.create_task(self._work(todo, left, deadline)) for _ in range(AT_ONCE)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        return left

    def _batches(self, held: list[Held]) -> Iterator[tuple[Member | None, list[Held]]]:
        """What each is to have, in order."""
        waiting: dict[tuple[bool, str, str], list[Held]] = defaultdict(list)
        members: dict[str, Member | None] = {"": None}
        for chunk in held:
            owner = self._cluster.owner(chunk.version, chunk.row, chunk.chunk)
            node = owner.node if owner is not None and owner.node != self._cluster.me else ""
            members.setdefault(node, owner)
            same = waiting[chunk.owned, node, chunk.version.name]
            same.append(chunk)
            if len(same) == BATCH_CHUNKS:
                yield members[node], waiting.pop((chunk.owned, node, chunk.version.name))
        for (_, node, _), rest in waiting.items():
            yield members[node], rest

    async def _work(
        self,
        todo: Iterator[tuple[Member | None, list[Held]]],
        left: list[Held],
        deadline: float,
    ) -> None:
        for to, chunks in todo:
            taken = await self._pulled(to, chunks, deadline - time.monotonic()) if to else set()
            for chunk in chunks:
                if (chunk.row, chunk.chunk) in taken:
                    self.progress.chunks += 1
                    self.progress.bytes += chunk.length
                else:
                    left.append(chunk)

    async def _pulled(self, to: Member, chunks: list[Held], seconds: float) -> set[tuple[int, int]]:
        """The chunks that `to` has now."""
        wanted = [(chunk.row, chunk.chunk) for chunk in chunks]
        if seconds <= 0:
            return set()
        meta = {"version": chunks[0].version.name, "chunks": wanted}
        try:
            answer = await self._cluster.ask(to, "pull", meta, min(PULL_SECONDS, seconds))
        except CacheopError as error:
            log.warning("%s took nothing: %s", to.node, error)
            return set()
        return set(wanted) - {(row, chunk) for row, chunk in answer["failed"]}

    async def _held(self) -> AsyncIterator[Held]:
        """All that is here."""
        table = self._store.table
        for version in self._store.versions.all():
            index = version.index
            for number, row in enumerate(version.slots.rows_by_slot()):
                size, first = index.size(row), version.slots.first_slot(row)
                for chunk, state in enumerate(table.states(first, chunk_count(size))):
                    if state == PRESENT:
                        owned = self._cluster.would_own(version, row, chunk)
                        yield Held(version, row, chunk, chunk_span(size, chunk)[1], owned)
                if number % ROWS_AT_A_TIME == 0:
                    await asyncio.sleep(0)
