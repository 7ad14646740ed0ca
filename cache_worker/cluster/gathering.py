"""Fetch ahead what neighbours have: while readers here go through a Dataset that fits on this node.

A reader that waits for the origin leaves its node's link idle, and will want sooner or later what
others get meanwhile. So owners tell what they read from the origin (news.py), and of large chunks
as soon as they begin to arrive; who got a large one tells too. Here it is fetched in the
background. Neither is the origin read nor anything evicted for it, and readers set the pace: for
each byte they asked for in vain, AHEAD bytes are fetched.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from typing import TYPE_CHECKING

from cacheop.api.chunk import chunk_count, chunk_span
from cacheop.api.errors import CacheopError

if TYPE_CHECKING:
    from cache_worker.cache import Cache
    from cache_worker.cluster.cluster import Cluster
    from cache_worker.cluster.view import Member
    from cache_worker.versions import Version

log = logging.getLogger("cacheop.worker")

AHEAD = 4
SHORTEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 2.0
"""Between two rounds of asking; the longer the longer there was no news."""
NEWS_SECONDS = 5.0
NEWS_MOST = 4096
LOOK_SECONDS = 0.5
AGAIN_SECONDS = 0.3
MEMBERS_AT_A_TIME = 16
"""Of so many neighbours the news is asked in one round."""
AT_ONCE = 32
AT_ONCE_BYTES = 96 << 20


class Gathering:
    """Used on the worker's loop. Owns its tasks, which end with `run`."""

    def __init__(self, cache: Cache, cluster: Cluster) -> None:
        self._cache, self._cluster = cache, cluster
        self._version: Version | None = None
        self._heard: dict[str, int] = {}
        """How far each neighbour's news was heard."""
        self._todo: dict[str, deque[tuple[int, int]]] = {}
        self._running: dict[asyncio.Task[None], int] = {}
        """Bytes of each fetch under way."""
        self._begun_at_bytes = 0
        """`wanted_bytes` when this version's turn began."""
        self._fetched_bytes = 0
        self._turn = 0
        self._woken = asyncio.Event()
        """There may be something to begin."""

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listen())
                group.create_task(self._work())
        finally:
            await self._stop()

    async def _work(self) -> None:
        while True:
            version = self._cache.store.versions.current()
            if version is not self._version:
                await self._stop()
                self._begin(version)
            if version is not None and self._may(version):
                self._start_all(version)
            await self._wait()

    async def _listen(self) -> None:
        pause = SHORTEST_PAUSE_SECONDS
        while True:
            await asyncio.sleep(pause)
            version = self._version
            heard = version is not None and self._may(version) and await self._hear(version)
            pause = SHORTEST_PAUSE_SECONDS if heard else min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def _wait(self) -> None:
        """Until there may be something to begin."""
        self._woken.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS):
                await self._woken.wait()

    def _begin(self, version: Version | None) -> None:
        self._version = version
        self._heard, self._todo = {}, {}
        self._begun_at_bytes, self._fetched_bytes = self._cache.counters.wanted_bytes, 0

    async def _stop(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _may(self, version: Version) -> bool:
        space = self._cache.store.space
        return (
            version.index.bytes <= space.quota_bytes * space.high
            and not self._cluster.my_facts.draining
            and self._left_bytes() > 0
        )

    def _left_bytes(self) -> int:
        """What may be fetched ahead now."""
        wanted = self._cache.counters.wanted_bytes - self._begun_at_bytes
        return AHEAD * wanted - self._fetched_bytes - sum(self._running.values())

    async def _hear(self, version: Version) -> bool:
        """Ask some neighbours, each in its turn; whether there was news."""
        neighbours = self._cluster.neighbours()
        others = [m for m in neighbours if len(self._todo.get(m.node, ())) < AT_ONCE]
        first = self._turn % len(others) if others else 0
        self._turn += MEMBERS_AT_A_TIME
        asked = (others[first:] + others[:first])[:MEMBERS_AT_A_TIME]
        return any(await asyncio.gather(*(self._hear_of(version, member) for member in asked)))

    async def _hear_of(self, version: Version, member: Member) -> bool:
        heard = self._heard.get(member.node, 0)
        meta = {"version": version.name, "after": heard, "most": NEWS_MOST}
        try:
            answer = await self._cluster.ask(member, "news", meta, NEWS_SECONDS)
            news = [(int(row), int(chunk)) for row, chunk in answer["chunks"]]
            after = int(answer["after"])
        except CacheopError as error:
            log.debug("no news of %s: %s", member.node, error)
        except (KeyError, TypeError, ValueError) as error:
            log.warning("%s tells news that make no sense: %r", member.node, error)
        else:
            if version is self._version and news:
                self._heard[member.node] = after
                self._todo.setdefault(member.node, deque(maxlen=4 * NEWS_MOST)).extend(news)
                self._woken.set()
                return True
        return False

    def _start_all(self, version: Version) -> None:
        """Begin what may begin now, from each neighbour in turn."""
        neighbours = self._cluster.neighbours()
        while neighbours:
            neighbours = [m for m in neighbours if self._start_one(version, m)]

    def _start_one(self, version: Version, member: Member) -> bool:
        todo = self._todo.get(member.node)
        while todo and self._left_bytes() > 0:
            if len(self._running) >= AT_ONCE or sum(self._running.values()) >= AT_ONCE_BYTES:
                return False
            row, chunk = todo.popleft()
            if self._is_absent(version, row, chunk):
                self._start(version, row, chunk, member)
                return True
        return False

    def _is_absent(self, version: Version, row: int, chunk: int) -> bool:
        index = version.index
        if not 0 <= row < index.rows or index.is_directory(row):
            return False
        if not 0 <= chunk < chunk_count(index.size(row)):
            return False
        return not self._cache.store.is_present(version, row, chunk)

    def _start(self, version: Version, row: int, chunk: int, member: Member) -> None:
        length = chunk_span(version.index.size(row), chunk)[1]
        version.use()  # its slots are its own until this ended
        task = asyncio.create_task(self._gather(version, row, chunk, member, length))
        self._running[task] = length
        task.add_done_callback(lambda done: self._ended(version, done))

    def _ended(self, version: Version, task: asyncio.Task[None]) -> None:
        version.unuse()
        del self._running[task]
        self._woken.set()

    async def _gather(
        self, version: Version, row: int, chunk: int, member: Member, length: int
    ) -> None:
        try:
            got = await self._cache.gather(version, row, chunk, member)
            if not got and self._is_absent(version, row, chunk):
                await asyncio.sleep(AGAIN_SECONDS)  # what arrived there is being written, perhaps
                got = await self._cache.gather(version, row, chunk, member)
            if got:
                self._fetched_bytes += length
        except CacheopError as error:
            log.info("chunk %d of row %d was not fetched ahead: %s", chunk, row, error)
