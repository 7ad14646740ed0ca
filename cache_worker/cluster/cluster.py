"""This node's place in its cluster: which chunks are ours, and how to get the others' from them.

The shell around placement and route (which decide), asking and members (who tell who is there).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cache_worker.cluster.asking import Asking, Chunk, Found, PeerSlow
from cache_worker.cluster.placement import Seats, keeper, weight_of
from cache_worker.cluster.route import COPIES, HOPS_MAX, ORDER_MEMBERS, route
from cache_worker.peers.errors import PeerError
from cacheop.api.chunk import chunk_count, chunk_span
from cacheop.api.errors import (
    CacheopError,
    NotFoundError,
    OriginChanged,
    SuspendedError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Literal

    from cache_worker.cluster.route import Asked, Flight, Route
    from cache_worker.cluster.view import Member, View
    from cache_worker.members.membership import Membership
    from cache_worker.peers.client import Peers
    from cache_worker.versions import Version

log = logging.getLogger("cacheop.worker")

MANIFEST_KEY = "manifest"
TRIES = 4
HEARD_SECONDS = 2.0


class Cluster:
    """Used on the worker's loop only."""

    def __init__(
        self, placement: Literal["Zone", "Cluster"], members: Membership, peers: Peers
    ) -> None:
        self._asking = Asking(peers)
        self.health, self.bans = self._asking.health, self._asking.bans
        self.pace = self._asking.pace
        self._placement, self._members = placement, members
        self.me = members.view.me
        self.view: View = members.view
        self._seats = Seats(self.view.domain(placement))
        self._settled: set[str] = set()
        """Versions made while we were here and nobody came or went since: nobody else can have
        what we own of them and lack."""
        self.ask, self.ask_file = self._asking.ask, self._asking.ask_file
        self.close = self._asking.close
        self._change = asyncio.Event()
        self._heard = asyncio.Event()

    # -- members ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the view fresh until cancelled."""
        await self._members.run(self._see)

    def _see(self, view: View) -> None:
        before = _seating(self.view.domain(self._placement))
        gone = {m.node for m in self.view.members} - {m.node for m in view.members}
        self.view = view
        domain = view.domain(self._placement)
        self._seats = Seats(domain)
        if _seating(domain) != before:  # chunks have other owners now
            log.info("members: %s", ", ".join(m.node for m in view.members))
            self._settled.clear()
        for node in gone:
            self._asking.left(node)
        self.health.keep(time.monotonic(), view.members)
        if self.my_facts.joined:  # set when each was asked once
            self._heard.set()
        self._change.set()

    async def heard_of_others(self) -> None:
        """Return once something was heard, or nothing is to be expected."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HEARD_SECONDS):
                await self._heard.wait()

    async def changed(self, seconds: float) -> None:
        """Return when there is another view than at the last call, or after `seconds`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._change.wait()
        self._change.clear()

    def announce(self, **facts: Any) -> None:
        """Tell the others what is new about us."""
        self._members.announce(replace(self._members.me, **facts))

    @property
    def my_facts(self) -> Member:
        """What we tell the others."""
        return self._members.me

    def adopted(self, version: str, others: Iterable[str]) -> None:
        """A version that was made just now came here; `others`: what it may share files with."""
        if self._settled.issuperset(others):
            self._settled.add(version)

    def neighbours(self) -> list[Member]:
        """The others in our failure domain that can be asked."""
        others = [m for m in self.view.domain(self._placement) if m.node != self.me]
        out = self._asking.out(others)
        return [member for member in others if member.node not in out]

    def lister(self, without: Iterable[str] = ()) -> Member | None:
        """Who lists the origin, for all zones; None when all drain."""
        out = self._asking.out(self.view.members).union(without)
        return keeper(MANIFEST_KEY, (m for m in self.view.members if m.node not in out))

    def lists(self) -> bool:
        """Whether that is us."""
        lister = self.lister()
        return lister is None or lister.node == self.me

    # -- placement --------------------------------------------------------------------------------

    def is_ours(self, version: Version, row: int, chunk: int, replicas: int = 1) -> bool:
        """Whether we are among the `replicas` members that are to have the chunk."""
        return self._seats.is_mine(self.me, version.index.content(row), chunk, replicas)

    def owner(self, version: Version, row: int, chunk: int) -> Member | None:
        """Who is to read the chunk from the origin."""
        return self._seats.owner(version.index.content(row), chunk)

    def would_own(self, version: Version, row: int, chunk: int) -> bool:
        """Whether the chunk is ours, also while we drain."""
        first = self._seats.order(version.index.content(row), chunk, 1, draining=True)
        return bool(first) and first[0].node == self.me

    def share(self, version: Version, replicas: int) -> Callable[[int, int], bool]:
        """Which (row, chunk) are ours to load, whoever comes and goes from now on."""
        seats, me, content = self._seats, self.me, version.index.content
        return lambda row, chunk: seats.is_mine(me, content(row), chunk, replicas)

    def owned(self, version: Version, row: int) -> frozenset[int]:
        """The chunks of a file that are ours."""
        content = version.index.content(row)
        chunks = range(chunk_count(version.index.size(row)))
        return frozenset(c for c in chunks if self._seats.is_mine(self.me, content, c))

    # -- asking -----------------------------------------------------------------------------------

    def hops(self, version: Version, row: int, chunk: int, asked: Asked | None) -> int:
        """Of the question that `fetch` would begin with; see Flight."""
        return self._route(self._order(version, row, chunk), asked).hops(asked)

    async def fetch(
        self,
        version: Version,
        row: int,
        chunk: int,
        asked: Asked | None,
        flight: Flight,
        *,
        others: int = 0,
    ) -> Found:
        """The chunk from whoever has it or owns it. Raises what an owner's origin said for good.

        `others`: so many are asked for a copy before the origin, also where none is to be expected.
        """
        length = chunk_span(version.index.size(row), chunk)[1]
        wanted = Chunk(version.name, row, chunk, length)
        order = self._order(version, row, chunk)
        if asked is not None and asked.holds:
            giver = self.view.member(asked.node)
            found = await self._asking.copy(wanted, [giver] if giver else [])
            if found.data is not None:
                return found
        failed: set[str] = set()
        outrun: set[str] = set()
        for _ in range(TRIES):
            way = self._route(order, asked, failed, outrun, max(others, COPIES))
            flight.hops = way.hops(asked)
            if way.ask is None:
                if others or way.instead or version.name not in self._settled:
                    found = await self._asking.copy(wanted, way.copies)
                    if found.data is not None:
                        return found
                return Found(hedged=way.hedged)
            if not self.health.ask(time.monotonic(), way.ask.node):  # another tries it just now
                failed.add(way.ask.node)
                continue
            without = (*failed, *outrun, *(asked.without if asked else ()))
            try:
                return await self._asking.from_owner(
                    wanted, way.ask, way.copies, flight.hops, without
                )
            except (PeerError, NotFoundError) as error:  # not found: it lacks the version
                log.info("%s did not give a chunk: %s", way.ask.node, error)
                (outrun if isinstance(error, PeerSlow) else failed).add(way.ask.node)
                if not self.health.budget.spend(time.monotonic()):
                    break
            except (OriginChanged, SuspendedError):  # only who has it already can help
                found = await self._asking.copy(wanted, way.copies)
                if found.data is None:
                    raise
                return found
            except CacheopError as error:  # its way to the origin may be broken, and ours not
                log.info("%s could not read the origin: %s", way.ask.node, error)
                break
        flight.hops = HOPS_MAX + 1
        return Found(hedged=bool(outrun))

    async def fetch_from(self, member: Member, version: Version, row: int, chunk: int) -> Found:
        """A chunk that `member` told it has; without data, it cannot be had there."""
        length = chunk_span(version.index.size(row), chunk)[1]
        return await self._asking.given(Chunk(version.name, row, chunk, length), member)

    def _order(self, version: Version, row: int, chunk: int) -> tuple[Member, ...]:
        content = version.index.content(row)
        return self._seats.order(content, chunk, ORDER_MEMBERS, draining=True)

    def _route(
        self,
        order: Sequence[Member],
        asked: Asked | None,
        failed: Iterable[str] = (),
        outrun: Iterable[str] = (),
        copies: int = COPIES,
    ) -> Route:
        now = time.monotonic()
        slow = {m.node for m in order if m.node != self.me and self._asking.is_slow(now, m.node)}
        out = self._asking.out(order).union(failed)
        return route(order, self.me, asked, out=out, slow=slow.union(outrun), copies=copies)


def _seating(members: Iterable[Member]) -> set[tuple[str, bool, int]]:
    """What decides who owns which chunk."""
    return {(m.node, m.draining, weight_of(m.capacity_bytes)) for m in members}
