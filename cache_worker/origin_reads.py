"""Reads chunks from the origin: on condition that it is the object of the manifest, counted."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from cache_worker.cluster.arriving import RELAY_BYTES
from cache_worker.cluster.pace import ORIGIN
from cache_worker.counters import OriginHealth
from cache_worker.flow import Flow
from cache_worker.origins import OriginObject
from cache_worker.ramp import Ramp
from cacheop.api.errors import CacheopError, StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from cache_worker.cluster.pace import Pace
    from cache_worker.counters import Counters
    from cache_worker.origins import Arrived, Origin
    from cache_worker.versions import Version


class OriginReads:
    """Holds no task: each read is its caller's."""

    def __init__(self, origin_of: Callable[[str], Origin], counters: Counters) -> None:
        """`origin_of` gives the Origin of a mountPoint, or raises UserError."""
        self.health = OriginHealth()
        self._origin_of = origin_of
        self._counters = counters
        self._flow = Flow()
        self._ramp = Ramp()
        self._large = Flow(self._ramp.limit)

    async def read(
        self,
        version: Version,
        row: int,
        offset: int,
        length: int,
        *,
        demand: bool,
        arrived: Arrived | None,
        pace: Pace | None,
    ) -> memoryview:
        """The bytes. Raises CacheopError: what the origin said.

        `pace` lets a cluster compare its members with the origin.
        """
        began = time.monotonic()
        index = version.index
        obj = OriginObject(
            key=index.origin_key(row),
            size_bytes=index.size(row),
            etag=index.etag(row),
            version_id=index.origin_version(row),
            mtime_ns=index.mtime_ns(row),
        )
        origin = self._origin_of(index.meta["mounts"][index.mount(row)]["mountPoint"])
        async with self._large_pass(length, demand, pace), self._flow.pass_(length, demand=demand):
            self._counters.origin_requests["get"] += 1
            try:
                with self._paced(pace):
                    data = memoryview(await origin.fetch(obj, offset, length, arrived))
            except CacheopError as error:
                self._counters.origin_errors += 1
                self.health.failed(error)
                raise
        if len(data) != length:
            raise StoreError(f"origin gave {len(data)} bytes of {obj.key}, not {length}")
        self.health.worked()
        self._counters.origin_bytes += length
        by_version = self._counters.version_origin_bytes
        by_version[version.name] = by_version.get(version.name, 0) + length
        if demand:
            self._counters.demand_origin_bytes += length
            if pace is not None:  # with the wait for a place: a hedge has that too
                pace.origin.add(time.monotonic(), time.monotonic() - began)
        return data

    @asynccontextmanager
    async def _large_pass(
        self, length: int, demand: bool, pace: Pace | None
    ) -> AsyncIterator[None]:
        """A place among the large reads that neighbours wait for; see Ramp."""
        if pace is None or length < RELAY_BYTES:
            yield
            return
        async with self._large.pass_(length, demand=demand):
            started = time.monotonic()
            yield
        now = time.monotonic()
        self._ramp.ended(now, length, now - started)
        self._large.allow(self._ramp.limit)

    @contextmanager
    def _paced(self, pace: Pace | None) -> Iterator[None]:
        if pace is None:
            yield
            return
        pace.asks(time.monotonic(), ORIGIN, self._counters.origin_bytes)
        try:
            yield
        finally:
            pace.ended(time.monotonic(), ORIGIN, self._counters.origin_bytes)
