"""Load: bring paths into the cache before they are asked for, with truthful progress.

In a cluster each node loads its share; a file is counted by who has its first chunk to load.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cache_worker.flow import Rate
from cacheop.api.chunk import chunk_count, chunk_span
from cacheop.api.errors import CacheopError
from cacheop.api.table import COMPLETE, PRESENT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator

    from cache_worker.cache import Cache
    from cache_worker.versions import Version

PARALLEL = 32
FAILED_NAMED = 100
FILES_AT_A_TIME = 1024
"""After so many files that are only looked at, others get a turn."""


@dataclass(slots=True)
class Progress:
    """How far a load is. `bytes` and `files` count what is there and known good."""

    bytes_total: int = 0
    files_total: int = 0
    bytes: int = 0
    files: int = 0
    bytes_at_start: int = 0
    """What was there before; the rate does not count it."""
    failed_files: int = 0
    failed: list[dict[str, str]] = field(default_factory=list)

    def report(self, phase: str, seconds: float) -> dict[str, Any]:
        """As docs/protocol.md has it."""
        rate = (self.bytes - self.bytes_at_start) / seconds if seconds > 0 else 0.0
        left = self.bytes_total - self.bytes
        return {
            "phase": phase,
            "bytes": self.bytes,
            "bytes_total": self.bytes_total,
            "files": self.files,
            "files_total": self.files_total,
            "failed": self.failed,
            "failed_files": self.failed_files,
            "rate_bytes_per_second": round(rate),
            "eta_seconds": round(left / rate, 1) if rate else None,
        }


class Load:
    """One load of some rows of a version; `share` picks the (row, chunk) that are ours to load."""

    def __init__(
        self,
        cache: Cache,
        version: Version,
        rows: list[range],
        rate: Rate,
        share: Callable[[int, int], bool] | None = None,
    ) -> None:
        self.progress = Progress()
        self._cache, self._version, self._rows, self._rate = cache, version, rows, rate
        self._share = share
        self._started = time.monotonic()
        self._whole = bytearray(version.index.rows)  # by row: counted at the start
        self._left: dict[int, int] = {}
        self._bad: set[int] = set()

    def limit(self, bytes_per_second: int) -> None:
        """Fetch no faster than this, instead of as the Dataset says. Before `run`."""
        self._rate = Rate(bytes_per_second)

    def report(self, phase: str = "Loading") -> dict[str, Any]:
        """Where it stands now."""
        return self.progress.report(phase, time.monotonic() - self._started)

    async def run(self) -> dict[str, Any]:
        """Fill what is missing. The final report: Complete only when every chunk is there."""
        await self._count()
        self._started = time.monotonic()
        chunks = self._missing()
        workers = [asyncio.create_task(self._work(chunks)) for _ in range(PARALLEL)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        await self._recount()
        return self.report("Failed" if self.progress.failed_files else "Complete")

    async def _recount(self) -> None:
        """Complete means there: what was evicted again while the rest came in is not."""
        async for row in self._files():
            if row not in self._bad and (gone := self._lacking(row)):
                self.progress.files -= self._counts(row)
                self.progress.bytes -= self._bytes(row, gone)
                self._failed(row, "evicted again while loading: raise cache.tiers[].quota")

    def _slot(self, row: int) -> int:
        return self._version.slots.first_slot(row)

    async def _files(self) -> AsyncIterator[int]:
        """The rows of all files to load, in the Dataset's own order. Lets others run in between."""
        for level in self._rows:
            for row in level:
                if row % FILES_AT_A_TIME == 0:
                    await asyncio.sleep(0)
                if not self._version.index.is_directory(row):
                    yield row

    def _chunks(self, row: int) -> list[int] | range:
        """The chunks of a file that are ours to load."""
        chunks = range(chunk_count(self._version.index.size(row)))
        if self._share is None:
            return chunks
        return [chunk for chunk in chunks if self._share(row, chunk)]

    def _counts(self, row: int) -> bool:
        return self._share is None or self._share(row, 0)

    def _bytes(self, row: int, chunks: Iterable[int]) -> int:
        size = self._version.index.size(row)
        return sum(chunk_span(size, chunk)[1] for chunk in chunks)

    def _lacking(self, row: int) -> list[int]:
        """The chunks of a file that are ours to load and not here."""
        table, first = self._cache.store.table, self._slot(row)
        if table.file_state(first) == COMPLETE:
            return []
        return [chunk for chunk in self._chunks(row) if table.state(first + chunk) != PRESENT]

    async def _count(self) -> None:
        async for row in self._files():
            total = self._bytes(row, self._chunks(row))
            self.progress.files_total += self._counts(row)
            self.progress.bytes_total += total
            if not self._lacking(row):
                self._whole[row] = 1
                self.progress.files += self._counts(row)
                self.progress.bytes += total
        self.progress.bytes_at_start = self.progress.bytes

    def _missing(self) -> Iterator[tuple[int, int]]:
        """(row, chunk) of all files that were not whole, in the Dataset's own order."""
        for level in self._rows:
            for row in level:
                if self._whole[row] or self._version.index.is_directory(row):
                    continue
                chunks = self._chunks(row)
                self._left[row] = len(chunks)
                for chunk in chunks:
                    yield row, chunk

    async def _work(self, chunks: Iterator[tuple[int, int]]) -> None:
        for row, chunk in chunks:
            length = chunk_span(self._version.index.size(row), chunk)[1]
            try:
                present = self._cache.store.is_present(self._version, row, chunk)
                if not present:
                    await self._rate.wait(length)
                found = await self._cache.ensure(self._version, row, chunk, demand=False)
            except CacheopError as error:
                self._failed(row, str(error))
                found = None
            if found is True:
                self.progress.bytes += length
                if present:
                    self.progress.bytes_at_start += length
            elif found is not None:
                why = self._cache.store.fault() or "no room: raise cache.tiers[].quota, or evict"
                self._failed(row, why)
            self._left[row] -= 1
            if not self._left[row]:
                del self._left[row]
                self.progress.files += self._counts(row) and row not in self._bad

    def _failed(self, row: int, why: str) -> None:
        if row in self._bad:
            return
        self._bad.add(row)
        self.progress.failed_files += 1
        if len(self.progress.failed) < FAILED_NAMED:
            self.progress.failed.append({"path": self._version.index.path(row), "error": why})
