"""Members of a fixed list, each asked `hello` every second.

All are presumed live at first, so that every node places chunks alike from its first moment.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cache_worker.members.beats import GONE_SECONDS, ROUND_SECONDS
from cache_worker.members.facts import from_meta
from cache_worker.members.membership import Membership, joined_after

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from cache_worker.cluster.view import Member, View

    Ask = Callable[
        [Member, str, dict[str, Any], float],
        Awaitable[tuple[Mapping[str, Any], bytes | memoryview]],
    ]
    """ask(member, op, meta, seconds) -> (meta, payload) of the answer. Raises OSError."""

log = logging.getLogger("cacheop.members")

ASK_SECONDS = 1.0
SILENCE_STEP_SECONDS = 1.5
"""At most this much silence counts for one unanswered question: it may be we who were stopped."""


class StaticMembers(Membership):
    """`listed` may include us."""

    def __init__(
        self,
        listed: Iterable[Member],
        me: Member,
        ask: Ask,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._listed = [member for member in listed if member.node != me.node]
        super().__init__(me, (presumed(member, me) for member in self._listed))
        self._live = {member.node: member for member in self._others}
        self._ask = ask
        self._clock = clock
        self._unasked = {member.node for member in self._listed}
        """Whom we have not asked yet: until then we can't know after whom we joined."""
        self._answered: dict[str, Member] = {}
        self._refused: dict[str, str] = {}

    async def run(self, changed: Callable[[View], None]) -> None:
        """See Membership."""
        self._changed = changed
        async with asyncio.TaskGroup() as group:
            for listed in self._listed:
                group.create_task(self._follow(listed))
            await asyncio.Event().wait()

    async def _follow(self, listed: Member) -> None:
        silent_seconds = 0.0
        last = self._clock()
        while True:
            started = self._clock()
            member = await self._hello(listed)
            silence = min(self._clock() - last, SILENCE_STEP_SECONDS)
            silent_seconds = 0.0 if member else silent_seconds + silence
            last = self._clock()
            if member:
                self._answered[listed.node] = self._live[listed.node] = member
            elif silent_seconds >= GONE_SECONDS and listed.node in self._live:
                del self._live[listed.node]
                log.warning("members: %s at %s is silent: gone", listed.node, listed.address)
            self._settle(listed.node)
            self._see(self._live.values())
            await asyncio.sleep(max(0.0, started + ROUND_SECONDS - self._clock()))

    async def _hello(self, listed: Member) -> Member | None:
        """What the member says of itself, if it does."""
        try:
            async with asyncio.timeout(ASK_SECONDS):
                meta, _ = await self._ask(listed, "hello", {}, ASK_SECONDS)
        except OSError:
            return None
        try:
            member = learnt(listed, meta)
        except ValueError as error:
            if self._refused.get(listed.node) != str(error):
                log.warning("members: what answers for %s is refused: %s", listed.node, error)
                self._refused[listed.node] = str(error)
            return None
        self._refused.pop(listed.node, None)
        return member

    def _settle(self, node: str) -> None:
        """When each was asked once: we joined after all who were there."""
        self._unasked.discard(node)
        if not self._unasked and not self.me.joined:
            self._set_me(replace(self.me, joined=joined_after(self._answered.values())))


def presumed(listed: Member, me: Member) -> Member:
    """What is taken for true of a member that was not heard yet: a node like we are."""
    return replace(listed, capacity_bytes=me.capacity_bytes)


def learnt(listed: Member, meta: Mapping[str, Any]) -> Member:
    """The member as it answered; where it is found is the list's to say. Raises ValueError."""
    member = from_meta({"zone": listed.zone, **meta, "address": listed.address})
    if member.node != listed.node:
        raise ValueError(f"it is node {member.node!r}")
    return member
