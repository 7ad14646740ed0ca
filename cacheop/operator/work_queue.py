"""Keyed work: each key by one worker at a time, asked for many times and done once, retried."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from cacheop.api.errors import CacheopError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

log = logging.getLogger("cacheop.operator")

Key = tuple[str, ...]
RETRY_SECONDS, RETRY_MAX_SECONDS = 0.5, 30.0


class WorkQueue:
    """Owns its timers. `do` gives the seconds after which the key is due again, or None."""

    def __init__(self, do: Callable[[Key], Awaitable[float | None]]) -> None:
        self._do = do
        self._ready: asyncio.Queue[Key] = asyncio.Queue()
        self._waiting: set[Key] = set()
        self._running: set[Key] = set()
        self._again: set[Key] = set()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}

    def add(self, key: Key) -> None:
        """Do `key` soon; at once again when it is being done."""
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        if key in self._running:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.put_nowait(key)

    def add_later(self, key: Key, seconds: float) -> None:
        """Do `key` in `seconds`, unless it is due earlier."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if key in self._waiting or (timer is not None and timer.when() <= loop.time() + seconds):
            return
        if timer is not None:
            timer.cancel()
        self._timers[key] = loop.call_later(max(0.0, seconds), self.add, key)

    def forget(self, key: Key) -> None:
        """No timer for `key` any more."""
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        self._failures.pop(key, None)

    @property
    def depth(self) -> int:
        """Keys that wait or are being done."""
        return len(self._waiting) + len(self._running)

    async def run(self, workers: int) -> None:
        """Until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(workers):
                    group.create_task(self._work())
        finally:
            for timer in self._timers.values():
                timer.cancel()

    async def _work(self) -> None:
        while True:
            key = await self._ready.get()
            self._waiting.discard(key)
            self._running.add(key)
            try:
                seconds = await self._once(key)
            finally:
                self._running.discard(key)
            if key in self._again:
                self._again.discard(key)
                self.add(key)
            elif seconds is not None:
                self.add_later(key, seconds)

    async def _once(self, key: Key) -> float | None:
        try:
            seconds: float | None = await self._do(key)
        except Exception as error:  # one Dataset must not end the work on all others
            count = self._failures.get(key, 0)
            self._failures[key] = count + 1
            wait = min(RETRY_SECONDS * 2.0 ** min(count, 10), RETRY_MAX_SECONDS)
            known = isinstance(error, CacheopError)
            log.warning("%s: %s; again in %.1f s", "/".join(key), error, wait, exc_info=not known)
            return wait
        self._failures.pop(key, None)
        return seconds
