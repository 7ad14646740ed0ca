"""The read path: the only file that knows the order store -> peers -> origin, and single flight.

    read -> which chunks of the span are missing -> ensure each -> the reader reads the file itself
    ensure -> present? -> somebody filling it already? -> verify | reserve, fetch, write -> present
    fetch -> a peer that owns it or has a copy (cluster.py) -> else, as its owner, the origin

A cache fault is never the reader's fault: without room or with a broken disk the bytes come back in
the answer. Only an origin's error reaches the reader.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from cache_worker.cluster.arriving import RELAY_BYTES, Arrivals, Arriving
from cache_worker.cluster.asking import Found
from cache_worker.cluster.news import News
from cache_worker.cluster.relayed import Relayed
from cache_worker.cluster.route import COPIES, ORDER_MEMBERS, Flight
from cache_worker.counters import Counters
from cache_worker.origin_reads import OriginReads
from cacheop.api.chunk import chunk_span, chunks_of_span
from cacheop.api.errors import SuspendedError
from cacheop.api.table import ABSENT, STATE_MASK, SUSPECT

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from cache_worker.cluster.cluster import Cluster
    from cache_worker.cluster.route import Asked
    from cache_worker.cluster.view import Member
    from cache_worker.origins import Arrived, Origin
    from cache_worker.store import Store
    from cache_worker.versions import Version

ATTEMPTS = 8
"""How often a chunk that is evicted again before it was read is cached again; then read through."""


_Found = bool | memoryview | None
"""Of a fill: as `Cache.ensure`; None = begin again."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A chunk that is to come here, and for whom."""

    version: Version
    row: int
    chunk: int
    demand: bool
    asked: Asked | None
    flight: Flight = field(default_factory=Flight)
    ahead: bool = False

    @property
    def slot(self) -> int:
        return self.version.slots.first_slot(self.row) + self.chunk

    @property
    def length(self) -> int:
        return chunk_span(self.version.index.size(self.row), self.chunk)[1]


class Cache:
    """Owns the tasks of the fills under way."""

    def __init__(self, store: Store, origin_of: Callable[[str], Origin]) -> None:
        """`origin_of` gives the Origin of a mountPoint, or raises UserError."""
        self.store = store
        self.counters = Counters()
        self._origin = OriginReads(origin_of, self.counters)
        self.origin_health = self._origin.health
        self.suspended = False
        self.cluster: Cluster | None = None
        """Where neighbours are asked; None = this node is alone."""
        self.news = News()
        self._fills: dict[int, tuple[Flight, asyncio.Task[_Found]]] = {}
        self._relayed = Relayed()
        self._arrivals = Arrivals()

    async def read(
        self, version: Version, row: int, offset: int, length: int, *, inline: bool = False
    ) -> memoryview | None:
        """Make a span readable. None: it is in the file now. Else its bytes (see docs/protocol.md).

        Raises CacheopError: what the origin answered, or SuspendedError.
        """
        with version.used():
            return await self._read(version, row, offset, length, inline=inline)

    async def _read(
        self, version: Version, row: int, offset: int, length: int, *, inline: bool
    ) -> memoryview | None:
        size = version.index.size(row)
        length = max(0, min(length, size - offset))
        chunks = chunks_of_span(size, offset, length)
        if size == 0:
            chunks = range(1)
        missing = self.store.missing(version, row, chunks)
        if missing:
            self.counters.misses += 1
        if len(missing) == 1:  # most files have one chunk: spare them a task and a gathering
            results = [await self.ensure(version, row, missing[0])]
        else:
            results = await asyncio.gather(*(self.ensure(version, row, c) for c in missing))
        kept = all(found is True for found in results)
        if kept and (missing or self.store.has_file(version, row)):  # filled just now: it is there
            if not inline:
                return None
        elif kept:
            # Flags without a file: somebody deleted it behind our back. Start over, once.
            self.store.drop_file(version, row)
        given = dict(zip(missing, results, strict=True))
        parts = [
            await self._bytes(version, row, chunk, offset, length, given.get(chunk))
            for chunk in chunks
        ]
        self.counters.read_bytes["through"] += length
        self.counters.read_requests["through"] += 1
        return parts[0] if len(parts) == 1 else memoryview(b"".join(parts))

    async def _bytes(
        self,
        version: Version,
        row: int,
        chunk: int,
        offset: int,
        length: int,
        found: bool | memoryview | None,
    ) -> memoryview:
        """The part of the span that lies in `chunk`, from where it is now."""
        start, chunk_bytes = chunk_span(version.index.size(row), chunk)
        first = max(offset, start)
        end = min(offset + length, start + chunk_bytes)
        for _ in range(ATTEMPTS):
            if isinstance(found, memoryview):
                return found[first - start : end - start]
            if found is False:
                return await self._fetch(version, row, first, end - first, demand=True)
            data = await self.store.read(version, row, chunk, first, end - first)
            if data is not None:
                return memoryview(data)
            if self.store.is_present(version, row, chunk):
                self.store.drop_file(version, row)
            found = await self.ensure(version, row, chunk)
        # The quota is too small for all that is read at the same time: not the reader's fault.
        return await self._fetch(version, row, first, end - first, demand=True)

    async def ensure(
        self,
        version: Version,
        row: int,
        chunk: int,
        *,
        demand: bool = True,
        ahead: bool = False,
        asked: Asked | None = None,
    ) -> bool | memoryview:
        """True: the chunk is PRESENT. False: there is no room for it. Bytes: could not be stored.

        One fill per chunk, however many ask and whichever version they read; a waiter that goes
        away does not stop it. `ahead`: a plan says that it is read soon. `asked`: a peer asks.
        """
        wanted = _Wanted(version, row, chunk, demand and not ahead, asked, ahead=ahead)
        if wanted.demand and asked is None and not self.store.is_present(version, row, chunk):
            self.counters.wanted_bytes += wanted.length
        while not self.store.is_present(version, row, chunk):
            if wanted.slot not in self._fills:
                if self.cluster is not None:
                    wanted.flight.hops = self.cluster.hops(version, row, chunk, asked)
                self._begin(wanted, self._fill(wanted))
            flight, task = self._fills[wanted.slot]
            if not flight.may_be_joined(asked):
                return (await self._obtain(replace(wanted, flight=Flight())))[0]
            found = await asyncio.shield(task)
            if found is not None:
                return found
            # It was to come from a neighbour that had it no more: the usual way, then, once the
            # loop has had its turn to forget that fill. An ended task is awaited without one.
            await asyncio.sleep(0)
        return True

    async def gather(self, version: Version, row: int, chunk: int, member: Member) -> bool:
        """Get a chunk that `member` has, in the background; True if it is here now.

        Neither is the origin read nor anything evicted for it.
        """
        wanted = _Wanted(version, row, chunk, demand=False, asked=None)
        if wanted.slot in self._fills or self.store.table.state(wanted.slot) != ABSENT:
            return False
        # Shielded: a reader may have joined it meanwhile.
        return await asyncio.shield(self._begin(wanted, self._gather(wanted, member))) is True

    def _begin(self, wanted: _Wanted, work: Coroutine[None, None, _Found]) -> asyncio.Task[_Found]:
        # The version stays until the fill is done, also when nobody waits for it any more: its
        # slots would be given to other files, and its tree is where we write.
        wanted.version.use()
        task = asyncio.create_task(work)
        self._fills[wanted.slot] = wanted.flight, task
        task.add_done_callback(lambda done: self._filled(wanted, done))
        return task

    async def give(
        self, version: Version, row: int, chunk: int, asked: Asked
    ) -> memoryview | Arriving | None:
        """For a peer: None when the chunk is PRESENT now, else all of its bytes.

        Arriving as soon as the origin sends a large one: the fill goes on by itself.
        """
        slot = version.slots.first_slot(row) + chunk
        whole = asyncio.create_task(self._give_whole(version, row, chunk, asked))
        with self._arrivals.awaiting(slot) as begun:
            try:
                if self._arrivals.get(slot) is None:
                    first: set[asyncio.Future[Any]] = {whole, begun}
                    await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
                arriving = self.arriving(slot)
                if arriving is not None and not whole.done():
                    return arriving
                return await whole
            finally:
                whole.cancel()

    def arriving(self, slot: int) -> Arriving | None:
        """A chunk that the origin sends us just now."""
        found = self._arrivals.get(slot)
        return found if found is not None and found.has_begun else None

    async def _give_whole(
        self, version: Version, row: int, chunk: int, asked: Asked
    ) -> memoryview | None:
        with version.used():
            for _ in range(ATTEMPTS):
                found = await self.ensure(version, row, chunk, asked=asked)
                if found is not False:  # False: joined the fill of a reader who wants a part only
                    return None if found is True else found
            return (await self._obtain(_Wanted(version, row, chunk, True, asked)))[0]

    def _filled(self, wanted: _Wanted, task: asyncio.Task[_Found]) -> None:
        del self._fills[wanted.slot]
        wanted.version.unuse()
        if not task.cancelled():
            task.exception()  # retrieved: whoever waited has it; nobody may have waited any more

    async def _fill(self, wanted: _Wanted) -> bool | memoryview:
        version, row, chunk, asked = wanted.version, wanted.row, wanted.chunk, wanted.asked
        if self.store.table.state(wanted.slot) == SUSPECT:
            await self.store.verify(version, row, chunk)
        if self.store.is_present(version, row, chunk):  # verified, by us or in the background
            return True
        cluster = self.cluster
        if self.suspended and cluster is None:
            raise self._suspended(version, row)
        ours = cluster is None or cluster.is_ours(version, row, chunk)
        if asked is not None and asked.holds:
            ours = True  # or will be, once who drains is gone
        # Where we had it before, or may not keep it, others may have got it from us.
        others = COPIES if self.store.table.state_byte(wanted.slot) & ~STATE_MASK else 0
        reserved = self.store.reserve(version, row, chunk, copy=not ours, ahead=wanted.ahead)
        if not reserved:
            others = COPIES
        with self._abandoned_if_failed(wanted if reserved else None):
            whole = reserved or asked is not None
            found = await self._find(wanted, others)
            if found.data is None and not whole:
                return False  # only the part that is read comes from the origin
            data, checksum = await self._given(wanted, found)
        if reserved and await self.store.write(version, row, chunk, data, checksum):
            self._relayed.drop((version.name, row, chunk))
            self._tell(wanted, found)
            return True
        self._relayed.keep((version.name, row, chunk), data, checksum)
        return data

    async def _gather(self, wanted: _Wanted, member: Member) -> bool | memoryview | None:
        """See gather; None = not to be had so."""
        version, row, chunk = wanted.version, wanted.row, wanted.chunk
        if self.cluster is None or self.store.space.to_evict(wanted.length):
            return None
        if not self.store.reserve(version, row, chunk, copy=True):
            return None
        with self._abandoned_if_failed(wanted):
            found = await self.cluster.fetch_from(member, version, row, chunk)
        if found.data is None:
            self.store.abandon(version, row, chunk)
            return None
        self.counters.peer_bytes += wanted.length
        self.counters.gathered_bytes += wanted.length
        if not await self.store.write(version, row, chunk, found.data, found.checksum):
            return found.data
        self._tell(wanted, found)
        return True

    def _tell(self, wanted: _Wanted, found: Found) -> None:
        """The chunk is here. Who read the origin tells; of a large one, everybody who has it, so
        that not all have to get it from one, and it told when it began to arrive (see _given).
        """
        if (found.data is None) == (wanted.length < RELAY_BYTES):
            self.news.add(wanted.version.name, wanted.row, wanted.chunk)

    @contextmanager
    def _abandoned_if_failed(self, reserved: _Wanted | None) -> Iterator[None]:
        try:
            yield
        except BaseException:
            if reserved is not None:
                self.store.abandon(reserved.version, reserved.row, reserved.chunk)
            raise

    async def _obtain(self, wanted: _Wanted) -> tuple[memoryview, int | None]:
        """(bytes of the whole chunk, their checksum if it is known), kept nowhere."""
        return await self._given(wanted, await self._find(wanted, COPIES))

    async def _find(self, wanted: _Wanted, others: int) -> Found:
        """The chunk from memory or a peer; without data, the origin is to be read by us."""
        version, row, chunk = wanted.version, wanted.row, wanted.chunk
        relayed = self._relayed.get((version.name, row, chunk))
        if relayed is not None:
            return Found(*relayed)
        if self.cluster is None or not wanted.length:
            return Found()
        if self.suspended:
            others = ORDER_MEMBERS
        asked, flight = wanted.asked, wanted.flight
        found = await self.cluster.fetch(version, row, chunk, asked, flight, others=others)
        if found.data is not None:
            self.counters.peer_bytes += wanted.length
        return found

    async def _given(self, wanted: _Wanted, found: Found) -> tuple[memoryview, int | None]:
        """What was found, else the whole chunk from the origin."""
        if found.data is not None:
            return found.data, found.checksum
        version, row, slot = wanted.version, wanted.row, wanted.slot
        offset, length = chunk_span(version.index.size(row), wanted.chunk)
        passed_on = self.cluster is not None or self._arrivals.is_awaited(slot)

        def begun() -> None:
            self.news.add(version.name, row, wanted.chunk)

        with self._arrivals.passing_on(slot, length if passed_on else 0, begun) as arriving:
            arrived = arriving.arrived if arriving else None
            demand = wanted.demand
            data = await self._fetch(version, row, offset, length, demand=demand, arrived=arrived)
        if found.hedged:
            self.counters.hedged_origin_bytes += length
        return data, arriving.checksum if arriving else None

    def _suspended(self, version: Version, row: int) -> SuspendedError:
        return SuspendedError(
            f"{version.index.path(row)} is not in the cache and the Dataset is suspended",
            hint="`cacheop resume` lets it read the origin again",
        )

    async def _fetch(
        self,
        version: Version,
        row: int,
        offset: int,
        length: int,
        *,
        demand: bool,
        arrived: Arrived | None = None,
    ) -> memoryview:
        """From the origin, unless the Dataset is suspended."""
        if length == 0:
            return memoryview(b"")
        if self.suspended:
            raise self._suspended(version, row)
        pace = self.cluster.pace if self.cluster is not None else None
        return await self._origin.read(
            version, row, offset, length, demand=demand, arrived=arrived, pace=pace
        )

    def touched(self, version: Version, row: int, times: int) -> None:
        """A reader tells that it read a file without asking."""
        self.store.table.used(version.slots.first_slot(row), int(time.time()), times)
        self.counters.read_bytes["local"] += version.index.size(row) * times
        self.counters.read_requests["local"] += times

    async def close(self) -> None:
        """Cancel the fills under way and wait for them."""
        tasks = [task for _, task in self._fills.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
