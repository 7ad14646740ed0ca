"""Fetch ahead what jobs said that they will read, and let the policy know of it.

The shell around order (where each rank is, what is next) and window (how far ahead). Fetches go the
way of all others, so each chunk comes from the origin once, through its owner. A plan that is
wrong, late, stale or abandoned costs its benefit and at most a part of the cache's room.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cache_worker.flow import Rate
from cache_worker.planning.order import Due, Order
from cache_worker.planning.window import Latencies, Pace, budget_bytes, window_reads
from cacheop.api.chunk import chunk_count, chunk_span
from cacheop.api.errors import CacheopError, ProtocolError
from cacheop.api.plan import Reads, unpack
from cacheop.api.table import ABSENT, SUSPECT

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from cache_worker.cache import Cache
    from cache_worker.reading import Reading
    from cache_worker.versions import Version
    from cacheop.api.dataset import Prefetch

log = logging.getLogger("cacheop.worker")

AT_ONCE, AT_ONCE_BYTES = 64, 64 << 20
"""Fetches under way. An origin is asked for fewer at a time, and for what readers want first."""
LOOKS_AT_A_TIME = 512
LOOK_SECONDS = 0.5
FAILED_SECONDS = 2.0
"""After an origin's error nothing is fetched ahead for so long."""
ORDERS_MOST = 256
READS_MOST = 32 << 20
"""Four bytes each; what is told beyond is not taken."""


@dataclass(slots=True)
class _Rank:
    """One rank's order, and who told it."""

    connection: Hashable
    reader: str
    version: Version
    rank: int
    order: Order
    pace: Pace = field(default_factory=Pace)


_Key = tuple["Hashable", str, int]
"""Who tells, of which version, for which rank."""


class Planning:
    """Used on the worker's loop. Owns its fetches, which end with `run`."""

    def __init__(self, cache: Cache, reading: Reading, prefetch: Callable[[], Prefetch]) -> None:
        self._cache, self._reading, self._prefetch = cache, reading, prefetch
        self._ranks: dict[_Key, _Rank] = {}
        self._wrong: set[_Key] = set()
        self._running: dict[asyncio.Task[None], int] = {}
        self._fetching: set[int] = set()
        self._latencies, self._fetches = Latencies(), Pace()
        self._limit, self._rate = 0, Rate(0)
        self._not_before = 0.0
        self._woken = asyncio.Event()
        reading.heard = self._heard

    # -- what is told -----------------------------------------------------------------------------

    def plan(
        self,
        connection: Hashable,
        reader: str,
        version: Version,
        meta: dict[str, Any],
        payload: bytes | memoryview,
    ) -> str:
        """Take part of an order, or how far a rank is in it; what became of it (docs/protocol.md).

        Raises ProtocolError.
        """
        rank = int(meta.get("rank", 0))
        key = (connection, version.name, rank)
        if key in self._wrong:
            return "wrong"
        if self._prefetch().mode == "Off":
            return "off"
        known = self._ranks.get(key)
        if "reached" in meta:
            epoch, place = (int(number) for number in meta["reached"])
            return self._reached(known, epoch, place)
        begin = bool(meta.get("begin"))
        if known is None:
            if not begin:
                return "unknown"
            if len(self._ranks) >= ORDERS_MOST:
                return "full"
            order = Order(lambda row, first, count: chunks_of(version, row, first, count))
            known = self._ranks[key] = _Rank(connection, reader, version, rank, order)
            version.use()
            self._cache.store.victims.needed = self._needs
        reads = unpack(str(meta.get("kind")), payload)
        if len(reads) + sum(r.order.reads for r in self._ranks.values()) > READS_MOST:
            return "full"
        epoch, place = int(meta["epoch"]), int(meta["at"])
        if epoch < 0 or place < 0:
            raise ProtocolError(f"a plan for read {place} of epoch {epoch}")
        first = known.order.add(epoch, place, reads, begin=begin)
        self._tell_policy(known, reads, first)
        self._woken.set()
        return "kept"

    def gone(self, connection: Hashable) -> None:
        """Who told them is gone: its orders are abandoned."""
        for key in [key for key in self._ranks if key[0] == connection]:
            self._forget(key)
        self._wrong = {key for key in self._wrong if key[0] != connection}

    def status(self) -> list[dict[str, Any]]:
        """See docs/protocol.md."""
        return [
            {
                "reader": told.reader,
                "version": told.version.name,
                "rank": told.rank,
                "epoch": told.order.epoch,
                "reads": told.order.reads,
                "reads_per_second": round(told.pace.per_second, 1),
                "fetched": told.order.fetched,
                "used": told.order.used,
            }
            for told in self._ranks.values()
        ]

    def _reached(self, told: _Rank | None, epoch: int, place: int) -> str:
        if told is None:
            return "unknown"
        before = told.order.cursor
        if not told.order.reached(epoch, place):
            return "unknown"
        self._moved(told, before)
        return "kept"

    def _moved(self, told: _Rank, before: int) -> None:
        order = told.order
        told.pace.count(time.monotonic(), order.cursor - before)
        self._reading.reached(told.connection, told.reader, told.version, order.cursor)
        if order.is_wrong():
            key = (told.connection, told.version.name, told.rank)
            log.warning("a plan of %s is dropped: what was fetched is not read", told.reader)
            self._forget(key)
            self._wrong.add(key)
        self._woken.set()

    def _heard(self, reader: str, version: Version, slots: Sequence[int]) -> None:
        for told in list(self._ranks.values()):
            if told.version is version:
                before = told.order.cursor
                # A mount does not know who reads through it: perhaps this job.
                told.order.heard(slots, own=reader in ("", told.reader))
                if told.order.cursor > before:
                    self._moved(told, before)
        if self._ranks:
            self._woken.set()

    def _needs(self, slot: int) -> bool:
        return any(told.order.needs(slot) for told in self._ranks.values())

    def _tell_policy(self, told: _Rank, reads: Reads, first: int) -> None:
        slots, at = slots_of(told.version, reads, first)
        ranks = sum(1 for r in self._ranks.values() if r.reader == told.reader and r.reader)
        self._reading.planned(told.connection, told.reader, told.version, slots, at, max(1, ranks))

    def _forget(self, key: _Key) -> None:
        told = self._ranks.pop(key)
        told.version.unuse()
        if not self._ranks:
            self._cache.store.victims.needed = None
        if not any(r.reader == told.reader and r.reader for r in self._ranks.values()):
            self._reading.unplanned(told.connection, told.reader, told.version)

    # -- what is done -----------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                self._woken.clear()
                if self._start_some():
                    await asyncio.sleep(0)
                    continue
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS):
                        await self._woken.wait()
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    def _start_some(self) -> bool:
        """Begin what may begin now; whether there is more to look at."""
        if not self._ranks or time.monotonic() < self._not_before or self._cache.suspended:
            return False
        limit = self._prefetch().max_origin_bytes_per_second or 0
        if limit != self._limit:
            self._limit, self._rate = limit, Rate(limit)
        room = budget_bytes(self._cache.store.space.limit_bytes)
        unread = sum(told.order.unread_bytes for told in self._ranks.values())
        for _ in range(LOOKS_AT_A_TIME):
            under_way = sum(self._running.values())
            if len(self._running) >= AT_ONCE or under_way >= AT_ONCE_BYTES:
                return False
            if under_way + unread >= max(1, room):  # one chunk is never too much
                return False
            found = self._next()
            if found is None:
                return False
            told, due = found
            state = self._cache.store.table.state(due.slot)
            if state in (ABSENT, SUSPECT) and due.slot not in self._fetching:
                self._start(told, due)
        return True

    def _next(self) -> tuple[_Rank, Due] | None:
        """What is used soonest, of all orders."""
        soonest = sorted(
            self._ranks.values(), key=lambda told: told.order.lead / (told.pace.per_second or 1.0)
        )
        latency, rate = self._latencies.slow_seconds, self._fetches.per_second
        for told in soonest:
            due = told.order.next(window_reads(told.pace.per_second, latency, rate))
            if due is not None:
                return told, due
        return None

    def _start(self, told: _Rank, due: Due) -> None:
        length = chunk_span(told.version.index.size(due.row), due.chunk)[1]
        told.version.use()
        self._fetching.add(due.slot)
        task = asyncio.create_task(self._fetch(told, due, length))
        self._running[task] = length
        task.add_done_callback(lambda done: self._ended(told, due, done))

    def _ended(self, told: _Rank, due: Due, task: asyncio.Task[None]) -> None:
        del self._running[task]
        self._fetching.discard(due.slot)
        told.version.unuse()
        self._woken.set()

    async def _fetch(self, told: _Rank, due: Due, length: int) -> None:
        await self._rate.wait(length)
        began = time.monotonic()
        try:
            found = await self._cache.ensure(told.version, due.row, due.chunk, ahead=True)
        except CacheopError as error:
            log.info("row %d was not fetched ahead: %s", due.row, error)
            self._not_before = time.monotonic() + FAILED_SECONDS
            return
        if found is not False:
            now = time.monotonic()
            self._latencies.add(now - began)
            self._fetches.count(now, 1)
            told.order.got(due.slot, length)
            self._cache.counters.planned_bytes += length


def chunks_of(version: Version, row: int, first: int, count: int) -> tuple[int, range]:
    """(slot of the first chunk, chunks) of a read; nothing of what the version does not have."""
    index = version.index
    if row >= index.rows or index.is_directory(row):
        return 0, range(0)
    chunks = range(chunk_count(index.size(row)))
    if count:
        chunks = chunks[first : first + count]
    return version.slots.first_slot(row), chunks


def slots_of(version: Version, reads: Reads, first: int) -> tuple[Sequence[int], Sequence[int]]:
    """The chunks of all reads, and the position of each where the first read is at `first`."""
    index, first_slot = version.index, version.slots.first_slot
    if reads.chunks is None and index.chunks == index.files and _all_files(version, reads):
        return [first_slot(row) for row in reads.rows], range(first, first + len(reads))
    slots: list[int] = []
    at: list[int] = []
    for number in range(len(reads)):
        slot, chunks = chunks_of(version, *reads.at(number))
        slots += range(slot + chunks.start, slot + chunks.stop)
        at += [first + number] * len(chunks)
    return slots, at


def _all_files(version: Version, reads: Reads) -> bool:
    index = version.index
    return max(reads.rows, default=0) < index.rows and not any(map(index.is_directory, reads.rows))
