"""Threads' results for the loop: many of them wake it once."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio


class Mailbox:
    """Belongs to one loop; any thread may put something in."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._items: deque[tuple[asyncio.Future[Any], Any]] = deque()
        self._called = False

    def put(self, future: asyncio.Future[Any], outcome: Any) -> None:
        """Let `future` end with `outcome`, which is raised if it is an exception."""
        with self._lock:
            self._items.append((future, outcome))
            if self._called or self._loop.is_closed():
                return
            self._called = True
        try:
            self._loop.call_soon_threadsafe(self._deliver)
        except RuntimeError:
            return  # the loop was closed this moment: nobody waits any more

    def _deliver(self) -> None:
        with self._lock:
            items, self._items = self._items, deque()
            self._called = False
        for future, outcome in items:
            if future.done():
                continue
            if isinstance(outcome, BaseException):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
