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
from typing import TYPE_CHECKING

from cache_worker.arriving import RELAY_BYTES, Arriving
from cache_worker.asking import Found
from cache_worker.counters import Counters, OriginHealth
from cache_worker.flow import Flow
from cache_worker.origins import OriginObject
from cache_worker.pace import ORIGIN
from cache_worker.relayed import Relayed
from cache_worker.route import COPIES, ORDER_MEMBERS, Flight
from cacheop.api.chunk import chunk_span, chunks_of_span
from cacheop.api.errors import CacheopError, StoreError, SuspendedError
from cacheop.api.table import PRESENT, STATE_MASK, SUSPECT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cache_worker.cluster import Cluster
    from cache_worker.origins import Arrived, Origin
    from cache_worker.reading import Reading
    from cache_worker.route import Asked
    from cache_worker.store import Store
    from cache_worker.versions import Version

ATTEMPTS = 8
"""How often a chunk that is evicted again before it was read is cached again; then read through."""


class Cache:
    """Owns the tasks of the fills under way."""

    def __init__(self, store: Store, origin_of: Callable[[str], Origin]) -> None:
        """`origin_of` gives the Origin of a mountPoint, or raises UserError."""
        self.store = store
        self.counters = Counters()
        self.origin_health = OriginHealth()
        self.suspended = False
        self.cluster: Cluster | None = None
        """Where neighbours are asked; None = this node is alone."""
        self.reading: Reading | None = None
        """Told what peers ask for."""
        self._origin_of = origin_of
        self._flow = Flow()
        self._fills: dict[int, tuple[Flight, asyncio.Task[bool | memoryview]]] = {}
        self._relayed = Relayed()
        self._arriving: dict[int, Arriving] = {}
        """Large chunks that the origin sends just now, by slot."""
        self._awaited: dict[int, set[asyncio.Future[None]]] = {}

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
        asked: Asked | None = None,
    ) -> bool | memoryview:
        """True: the chunk is PRESENT. False: there is no room for it. Bytes: could not be stored.

        One fill per chunk, however many ask and whichever version they read; a waiter that goes
        away does not stop it. `asked`: it is a peer that asks.
        """
        slot = version.slots.first_slot(row) + chunk
        if self.store.table.state(slot) == PRESENT:
            return True
        if slot not in self._fills:
            # The version stays until the fill is done, also when nobody waits for it any more: its
            # slots would be given to other files, and its tree is where we write.
            version.use()
            flight = Flight()
            if self.cluster is not None:
                flight.hops = self.cluster.hops(version, row, chunk, asked)
            task = asyncio.create_task(self._fill(version, row, chunk, demand, asked, flight))
            self._fills[slot] = flight, task
            task.add_done_callback(lambda done: self._filled(version, slot, done))
        flight, task = self._fills[slot]
        if not flight.may_be_joined(asked):
            return (await self._obtain(version, row, chunk, demand, asked, Flight()))[0]
        return await asyncio.shield(task)

    async def give(
        self, version: Version, row: int, chunk: int, asked: Asked
    ) -> memoryview | Arriving | None:
        """For a peer: None when the chunk is PRESENT now, else all of its bytes.

        Arriving as soon as the origin sends a large one: the fill goes on by itself.
        """
        slot = version.slots.first_slot(row) + chunk
        if self.reading is not None:
            self.reading.asked(asked.node, version, slot)
        whole = asyncio.create_task(self._give_whole(version, row, chunk, asked))
        begun = asyncio.get_running_loop().create_future()
        waiting = self._awaited.setdefault(slot, set())
        waiting.add(begun)
        try:
            if slot not in self._arriving:
                await asyncio.wait({whole, begun}, return_when=asyncio.FIRST_COMPLETED)
            arriving = self._arriving.get(slot)
            if arriving is not None and arriving.has_begun and not whole.done():
                return arriving
            return await whole
        finally:
            whole.cancel()
            waiting.discard(begun)
            if not waiting:
                self._awaited.pop(slot, None)

    async def _give_whole(
        self, version: Version, row: int, chunk: int, asked: Asked
    ) -> memoryview | None:
        with version.used():
            for _ in range(ATTEMPTS):
                found = await self.ensure(version, row, chunk, asked=asked)
                if found is not False:  # False: joined the fill of a reader who wants a part only
                    return None if found is True else found
            return (await self._obtain(version, row, chunk, True, asked, Flight()))[0]

    def _filled(self, version: Version, slot: int, task: asyncio.Task[bool | memoryview]) -> None:
        del self._fills[slot]
        version.unuse()
        if not task.cancelled():
            task.exception()  # retrieved: whoever waited has it; nobody may have waited any more

    async def _fill(
        self,
        version: Version,
        row: int,
        chunk: int,
        demand: bool,
        asked: Asked | None,
        flight: Flight,
    ) -> bool | memoryview:
        slot = version.slots.first_slot(row) + chunk
        if self.store.table.state(slot) == SUSPECT:
            await self.store.verify(version, row, chunk)
        if self.store.table.state(slot) == PRESENT:  # verified, by us or in the background
            return True
        cluster = self.cluster
        if self.suspended and cluster is None:
            raise self._suspended(version, row)
        ours = cluster is None or cluster.is_ours(version, row, chunk)
        if asked is not None and asked.holds:
            ours = True  # or will be, once who drains is gone
        # Where we had it before, or may not keep it, others may have got it from us.
        others = COPIES if self.store.table.state_byte(slot) & ~STATE_MASK else 0
        reserved = self.store.reserve(version, row, chunk, copy=not ours)
        if not reserved:
            others = COPIES
        try:
            whole = reserved or asked is not None
            found = await self._find(version, row, chunk, asked, flight, others)
            if found.data is None and not whole:
                return False  # only the part that is read comes from the origin
            data, checksum = await self._given(version, row, chunk, demand, found)
        except BaseException:
            if reserved:
                self.store.abandon(version, row, chunk)
            raise
        if reserved and await self.store.write(version, row, chunk, data, checksum):
            self._relayed.drop((version.name, row, chunk))
            return True
        self._relayed.keep((version.name, row, chunk), data, checksum)
        return data

    async def _obtain(
        self,
        version: Version,
        row: int,
        chunk: int,
        demand: bool,
        asked: Asked | None,
        flight: Flight,
    ) -> tuple[memoryview, int | None]:
        """(bytes of the whole chunk, their checksum if it is known), kept nowhere."""
        found = await self._find(version, row, chunk, asked, flight, COPIES)
        return await self._given(version, row, chunk, demand, found)

    async def _find(
        self,
        version: Version,
        row: int,
        chunk: int,
        asked: Asked | None,
        flight: Flight,
        others: int,
    ) -> Found:
        """The chunk from memory or a peer; without data, the origin is to be read by us."""
        length = chunk_span(version.index.size(row), chunk)[1]
        relayed = self._relayed.get((version.name, row, chunk))
        if relayed is not None:
            return Found(*relayed)
        if self.cluster is None or not length:
            return Found()
        if self.suspended:
            others = ORDER_MEMBERS
        found = await self.cluster.fetch(version, row, chunk, asked, flight, others=others)
        if found.data is not None:
            self.counters.peer_bytes += length
        return found

    async def _given(
        self,
        version: Version,
        row: int,
        chunk: int,
        demand: bool,
        found: Found,
    ) -> tuple[memoryview, int | None]:
        """What was found, else the whole chunk from the origin."""
        if found.data is not None:
            return found.data, found.checksum
        offset, length = chunk_span(version.index.size(row), chunk)
        slot = version.slots.first_slot(row) + chunk
        wanted = self.cluster is not None or slot in self._awaited
        with self._passing_on(slot, length if wanted else 0) as arriving:
            arrived = arriving.arrived if arriving else None
            data = await self._fetch(version, row, offset, length, demand=demand, arrived=arrived)
        if found.hedged:
            self.counters.hedged_origin_bytes += length
        return data, arriving.checksum if arriving else None

    @contextmanager
    def _passing_on(self, slot: int, length: int) -> Iterator[Arriving | None]:
        """Let peers have the bytes of a large chunk as they come. Not twice at a time."""
        if length < RELAY_BYTES or slot in self._arriving:
            yield None
            return
        arriving = self._arriving[slot] = Arriving(length, lambda: self._begun(slot))
        try:
            yield arriving
        except CacheopError as error:
            arriving.end(error)
            raise
        finally:
            del self._arriving[slot]
            arriving.end()

    def _begun(self, slot: int) -> None:
        for waiter in self._awaited.get(slot, ()):
            if not waiter.done():
                waiter.set_result(None)

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
        """From the origin, on condition that it is the object of the manifest."""
        index = version.index
        if length == 0:
            return memoryview(b"")
        if self.suspended:
            raise self._suspended(version, row)
        obj = OriginObject(
            key=index.origin_key(row),
            size_bytes=index.size(row),
            etag=index.etag(row),
            version_id=index.origin_version(row),
            mtime_ns=index.mtime_ns(row),
        )
        origin = self._origin_of(index.meta["mounts"][index.mount(row)]["mountPoint"])
        async with self._flow.pass_(length, demand=demand):
            self.counters.origin_requests["get"] += 1
            try:
                with self._paced():
                    data = memoryview(await origin.fetch(obj, offset, length, arrived))
            except CacheopError as error:
                self.counters.origin_errors += 1
                self.origin_health.failed(error)
                raise
        if len(data) != length:
            raise StoreError(f"origin gave {len(data)} bytes of {obj.key}, not {length}")
        self.origin_health.worked()
        self.counters.origin_bytes += length
        by_version = self.counters.version_origin_bytes
        by_version[version.name] = by_version.get(version.name, 0) + length
        if demand:
            self.counters.demand_origin_bytes += length
        return data

    @contextmanager
    def _paced(self) -> Iterator[None]:
        """Let the cluster compare its members with the origin."""
        if self.cluster is None:
            yield
            return
        pace = self.cluster.pace
        pace.asks(time.monotonic(), ORIGIN, self.counters.origin_bytes)
        try:
            yield
        finally:
            pace.ended(time.monotonic(), ORIGIN, self.counters.origin_bytes)

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
