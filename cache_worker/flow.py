"""How much may be asked of an origin at once, and how fast background work may go."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Flow:
    """At most `requests` requests and `bytes_` bytes in flight; demand goes before background.

    The byte limit bounds the worker's memory: what is in flight sits in buffers.
    """

    def __init__(self, requests: int = 32, bytes_: int = 96 << 20) -> None:
        self._allowed = self._requests = requests
        self._bytes = bytes_
        self._demand: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._background: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def pass_(self, length: int, *, demand: bool) -> AsyncIterator[None]:
        """Hold a place for one request of `length` bytes."""
        queue = self._demand if demand else self._background
        if queue or not self._take(length):
            place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            queue.append((length, place))
            try:
                await place
            except asyncio.CancelledError:
                if place.done() and not place.cancelled():
                    self._give(length)  # the place came, and nobody is there to use it
                raise
        try:
            yield
        finally:
            self._give(length)

    def allow(self, requests: int) -> None:
        """So many requests from now on; those in flight stay."""
        self._requests += requests - self._allowed
        self._allowed = requests
        self._admit()

    def _take(self, length: int) -> bool:
        if self._requests <= 0 or self._bytes <= 0:
            return False
        self._requests -= 1
        self._bytes -= length
        return True

    def _give(self, length: int) -> None:
        self._requests += 1
        self._bytes += length
        self._admit()

    def _admit(self) -> None:
        for queue in (self._demand, self._background):
            while queue and (queue[0][1].cancelled() or self._take(queue[0][0])):
                _, place = queue.popleft()
                if not place.cancelled():
                    place.set_result(None)


class Rate:
    """A byte rate that background work keeps to; 0 or None = no limit."""

    def __init__(self, bytes_per_second: int | None) -> None:
        self._rate = bytes_per_second or 0
        self._free_at = 0.0

    async def wait(self, length: int) -> None:
        """Return when `length` more bytes may be asked for."""
        if not self._rate:
            return
        now = asyncio.get_running_loop().time()
        start = max(now, self._free_at)
        self._free_at = start + length / self._rate
        if start > now:
            await asyncio.sleep(start - now)
