"""Room for bytes that threads share; who finds none waits."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

LOOK_SECONDS = 0.5
"""How often who waits looks whether it still has to."""


class Room:
    """At most `limit_bytes` taken at a time, first come first served."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._taken = 0
        self._changed = threading.Condition()
        self._line: deque[object] = deque()
        self._closed = False

    def take(self, count: int, seconds: float, wanted: Callable[[], bool]) -> None:
        """Take so much, of an empty room even more than its size. TimeoutError when none came.

        ConnectionError as soon as it is not `wanted` any more.
        """
        deadline = time.monotonic() + seconds
        ticket = object()
        with self._changed:
            self._line.append(ticket)
            try:
                while self._line[0] is not ticket or (
                    self._taken and self._taken + count > self._limit_bytes
                ):
                    left = deadline - time.monotonic()
                    if self._closed or left <= 0:
                        raise TimeoutError("no room for what would have to be read")
                    self._changed.wait(min(left, LOOK_SECONDS))
                    if not wanted():
                        raise ConnectionResetError("nobody waits for it any more")
                self._taken += count
            finally:
                self._line.remove(ticket)
                self._changed.notify_all()

    def take_now(self, count: int) -> bool:
        """Take so much if that needs no waiting."""
        with self._changed:
            if self._line or (self._taken and self._taken + count > self._limit_bytes):
                return False
            self._taken += count
            return True

    def give(self, count: int) -> None:
        """Give back."""
        with self._changed:
            self._taken -= count
            self._changed.notify_all()

    def close(self) -> None:
        """Nobody waits any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
