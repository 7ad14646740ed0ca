"""Reads chunks from the origin: on condition that it is the object of the manifest, counted."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cache_worker.cluster.pace import ORIGIN
from cache_worker.counters import OriginHealth
from cache_worker.flow import Flow
from cache_worker.origins import OriginObject
from cacheop.api.errors import CacheopError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
        index = version.index
        obj = OriginObject(
            key=index.origin_key(row),
            size_bytes=index.size(row),
            etag=index.etag(row),
            version_id=index.origin_version(row),
            mtime_ns=index.mtime_ns(row),
        )
        origin = self._origin_of(index.meta["mounts"][index.mount(row)]["mountPoint"])
        async with self._flow.pass_(length, demand=demand):
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
        return data

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
