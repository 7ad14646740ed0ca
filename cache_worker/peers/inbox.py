"""Work of the loop on behalf of a thread, and the way its outcomes come back to that thread."""

from __future__ import annotations

import asyncio
import logging
import os
import select
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from cacheop.api.errors import CacheopError, ProtocolError, WorkerUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    Call = Callable[[], Awaitable[object]]

log = logging.getLogger(__name__)


class Inbox:
    """Owned by one thread, which starts work, takes outcomes and closes it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, node: str) -> None:
        self._loop = loop
        self._node = node
        self._tasks: set[asyncio.Task[Any]] = set()
        """Touched on the loop only."""
        self._outcomes: deque[tuple[int, object]] = deque()
        self._lock = threading.Lock()
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def start(self, calls: Sequence[tuple[int, Call]], seconds: float) -> None:
        """Run these at the same time on the loop, each for `seconds` at most."""
        try:
            self._loop.call_soon_threadsafe(self._start, calls, seconds)
        except RuntimeError:  # the loop is closed: the worker ends
            raise ConnectionAbortedError("this node stops") from None

    def take(self, connection: int, seconds: float) -> list[tuple[int, object]]:
        """Outcomes (number, result or CacheopError), at least one; waits for it.

        ConnectionError when the other end of `connection` (an fd) went away meanwhile.
        """
        poll = select.poll()
        poll.register(self._bell, select.POLLIN)
        poll.register(connection, select.POLLIN | select.POLLRDHUP)
        deadline = time.monotonic() + seconds
        while True:
            with self._lock:
                if self._outcomes:
                    found = list(self._outcomes)
                    self._outcomes.clear()
                    os.eventfd_read(self._bell)
                    return found
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("the loop does not answer")
            for fd, events in poll.poll(left * 1000):
                if fd == connection and events & ~select.POLLIN:
                    raise ConnectionResetError("the asker does not wait any more")
                if fd == connection:
                    raise ProtocolError("a request before the last one was answered")

    def close(self) -> None:
        """Cancel what is still under way."""
        with self._lock:
            os.close(self._bell)
            self._bell = -1
        try:
            self._loop.call_soon_threadsafe(self._cancel)
        except RuntimeError:
            log.debug("the loop is closed: nothing to cancel")

    # -- on the loop ------------------------------------------------------------------------------

    def _start(self, calls: Sequence[tuple[int, Call]], seconds: float) -> None:
        for number, call in calls:
            task = self._loop.create_task(self._run(number, call, seconds))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self, number: int, call: Call, seconds: float) -> None:
        outcome: object
        try:
            async with asyncio.timeout(seconds):
                outcome = await call()
        except TimeoutError:
            outcome = WorkerUnavailable(f"node {self._node} had no answer within {seconds:g} s")
        except CacheopError as error:
            outcome = error
        except Exception as error:  # the asker shall hear of it, whatever it is
            log.exception("a request of a peer failed")
            outcome = CacheopError(f"node {self._node} failed: {error!r}")
        with self._lock:
            if self._bell >= 0:
                self._outcomes.append((number, outcome))
                os.eventfd_write(self._bell, 1)

    def _cancel(self) -> None:
        for task in self._tasks:
            task.cancel()
