"""Members that announce themselves in a Redis (docs/protocol.md, "Members in Redis").

Each second one round: leave our beat, read those of all. Nobody ever waits for it, and whatever
Redis does or does not, the last view stays until a Redis that answers says otherwise.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from cache_worker.members import resp
from cache_worker.members.beats import ROUND_SECONDS, Heard, forgotten, listen
from cache_worker.members.facts import from_entry, to_entry
from cache_worker.members.membership import Membership, joined_after
from cache_worker.members.outage import Outage

if TYPE_CHECKING:
    from collections.abc import Callable

    from cache_worker.cluster.view import Member, View
    from cache_worker.members.settings import RedisPlace

log = logging.getLogger("cacheop.members")

DEADLINE_SECONDS = 1.0


class RedisMembers(Membership):
    """Starts as we alone; the first round shows who else is there."""

    def __init__(
        self, place: RedisPlace, me: Member, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(me)
        self._server = place.server
        self._hash = f"{place.prefix}members"
        self._counter = f"{place.prefix}joined"
        self._clock = clock
        self._wake = asyncio.Event()
        self._heard = Heard()
        self._redis_ms = 0
        self._redis_ms_at = 0.0
        """What Redis's clock said, and when by ours."""
        self._forgotten: list[str] = []
        self._refused: dict[str, str] = {}
        self._outage = Outage(f"members: {place.server}", "The last view stays")

    def announce(self, me: Member) -> None:
        """See Membership; others know it within a second."""
        super().announce(me)
        self._wake.set()

    async def run(self, changed: Callable[[View], None]) -> None:
        """See Membership."""
        self._changed = changed
        while True:
            try:
                await self._rounds()
            except OSError as error:
                await asyncio.sleep(self._outage.failed(error))

    async def _rounds(self) -> None:
        """Over one connection, until it fails."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            connection = await resp.Connection.open(self._server)
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                await self._join(connection)
            reconnected = True
            while True:
                self._wake.clear()
                due = self._clock() + ROUND_SECONDS
                async with asyncio.timeout(DEADLINE_SECONDS):
                    await self._round(connection, reconnected=reconnected)
                reconnected = False
                self._outage.over()
                with suppress(TimeoutError):
                    async with asyncio.timeout(due - self._clock()):
                        await self._wake.wait()
        finally:
            connection.close()

    async def _join(self, connection: resp.Connection) -> None:
        """Learn Redis's time and, once, what comes after all who joined before.

        The counter alone would begin anew in a Redis that was flushed.
        """
        if self.me.joined:
            (now,) = await connection.call(("TIME",))
        else:
            now, counter, entries = await connection.call(
                ("TIME",), ("INCR", self._counter), ("HGETALL", self._hash)
            )
            others = [member for member, _ in self._entries(entries).values()]
            joined = max(resp.count(counter), joined_after(others))
            self._set_me(replace(self.me, joined=joined))
        self._set_time(now)

    async def _round(self, connection: resp.Connection, *, reconnected: bool) -> None:
        """All of it or nothing: if a full or read-only Redis took no beats, all would seem dead."""
        beat_ms = self._redis_ms + round((self._clock() - self._redis_ms_at) * 1000)
        leave = [("HDEL", self._hash, *self._forgotten)] if self._forgotten else []
        now, _, entries, *_ = await connection.call(
            ("TIME",),
            ("HSET", self._hash, self.me.node, to_entry(self.me, beat_ms)),
            ("HGETALL", self._hash),
            *leave,
        )
        self._set_time(now)
        found = self._entries(entries)
        found.pop(self.me.node, None)
        self._heard = listen(
            self._heard,
            found,
            redis_ms=self._redis_ms,
            now=self._redis_ms_at,
            reconnected=reconnected,
        )
        self._forgotten = forgotten(found, self._heard, self._redis_ms)
        self._see(self._heard.live())

    def _set_time(self, reply: resp.Reply) -> None:
        self._redis_ms, self._redis_ms_at = resp.milliseconds(reply), self._clock()

    def _entries(self, reply: resp.Reply) -> dict[str, tuple[Member, int]]:
        """What the hash has, without what is no member; of that, one log line each."""
        found, refused = {}, {}
        for key, value in resp.pairs(reply).items():
            node = key.decode(errors="backslashreplace")
            try:
                found[node] = from_entry(node, value)
            except ValueError as error:
                refused[node] = str(error)
        for node, why in refused.items():
            if self._refused.get(node) != why:
                log.warning("members: the entry of %s is refused: %s", ascii(node)[:80], why)
        self._refused = refused
        return found
