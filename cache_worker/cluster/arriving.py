"""A large chunk on its way from the origin that a peer waits for: passed on as its bytes arrive.

Written on the worker's loop, read by the threads that serve peers. The checksum comes last, so who
gets the bytes knows only then that they are good.
"""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import xxhash

from cacheop.api.errors import CacheopError, WorkerUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RELAY_BYTES = 1 << 20
"""Smaller chunks are passed on whole: they are here before anybody could be told."""


class Arriving:
    """See cache_worker.peers.service.Incoming."""

    def __init__(self, length: int, begun: Callable[[], None]) -> None:
        """`begun` is called once, on the loop, when there is something to pass on."""
        self.length = length
        self._begun = begun
        self._data = memoryview(bytearray(length))
        self._count = 0
        self._hash = xxhash.xxh3_64()
        self._ended = False
        self._error: CacheopError | None = None
        self._changed = threading.Condition()

    # -- on the loop ------------------------------------------------------------------------------

    def arrived(self, offset: int, piece: memoryview) -> None:
        """`piece` belongs at `offset`; one that came before (a read begun again) changes nothing.

        The origin answers on condition that it is the same object, so it is the same bytes.
        """
        new = piece[self._count - offset :] if offset <= self._count else piece[:0]
        if not new or self._ended:
            return
        self._data[self._count : self._count + len(new)] = new
        self._hash.update(new)
        with self._changed:
            self._count += len(new)
            self._changed.notify_all()
        if self._count == len(new):
            self._begun()

    def end(self, error: CacheopError | None = None) -> None:
        """Nothing more comes."""
        with self._changed:
            if self._ended:
                return
            if error is None and self._count != self.length:
                error = WorkerUnavailable(f"only {self._count} of {self.length} bytes came")
            self._error = error
            self._ended = True
            self._changed.notify_all()

    @property
    def has_begun(self) -> bool:
        """Whether there is something to pass on."""
        return self._count > 0

    @property
    def checksum(self) -> int | None:
        """Of the whole chunk, once it is here."""
        return self._hash.intdigest() if self._count == self.length else None

    # -- in threads -------------------------------------------------------------------------------

    def piece(self, after: int, seconds: float) -> memoryview:
        """What came since `after` bytes had come; waits for some. Empty: that was all.

        Raises what the origin said, TimeoutError when nothing came for so long.
        """
        deadline = time.monotonic() + seconds
        with self._changed:
            while self._count <= after and not self._ended:
                if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError("no more bytes came from the origin")
            if self._error is not None:
                raise self._error
            return self._data[after : self._count]

    def whole(self) -> int:
        """The checksum, after the last piece."""
        return self._hash.intdigest()


class Arrivals:
    """All of them by slot, and who waits for one to begin. Used on the worker's loop only."""

    def __init__(self) -> None:
        self._arriving: dict[int, Arriving] = {}
        self._awaited: dict[int, set[asyncio.Future[None]]] = {}

    def get(self, slot: int) -> Arriving | None:
        """What is on its way."""
        return self._arriving.get(slot)

    def is_awaited(self, slot: int) -> bool:
        """Whether somebody would pass it on."""
        return slot in self._awaited

    @contextmanager
    def awaiting(self, slot: int) -> Iterator[asyncio.Future[None]]:
        """A future that is done once there is something of the chunk to pass on."""
        begun = asyncio.get_running_loop().create_future()
        waiting = self._awaited.setdefault(slot, set())
        waiting.add(begun)
        try:
            yield begun
        finally:
            waiting.discard(begun)
            if not waiting:
                self._awaited.pop(slot, None)

    @contextmanager
    def passing_on(
        self, slot: int, length: int, told: Callable[[], None]
    ) -> Iterator[Arriving | None]:
        """Let peers have the bytes of a large chunk as they come. Not twice at a time.

        `told` is called once, when there is something to pass on.
        """
        if length < RELAY_BYTES or slot in self._arriving:
            yield None
            return

        def begun() -> None:
            self._begun(slot)
            told()

        arriving = self._arriving[slot] = Arriving(length, begun)
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
