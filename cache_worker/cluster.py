"""This node's place in its cluster: which chunks are ours, and how to get the others' from them.

The shell around placement, route and health (which decide), peers (which ask) and members (who tell
who is there). Runs on the worker's loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cache_worker.health import Health
from cache_worker.peers.errors import PeerBadBytes, PeerError, PeerUnavailable
from cache_worker.placement import Seats, keeper
from cache_worker.route import HOPS_MAX, Asked, route
from cacheop.api.chunk import chunk_count, chunk_span
from cacheop.api.errors import (
    CacheopError,
    NotFoundError,
    OriginChanged,
    SuspendedError,
    WorkerUnavailable,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Literal

    from cache_worker.members.membership import Membership
    from cache_worker.peers.client import Peers
    from cache_worker.peers.link import Fetched
    from cache_worker.versions import Version
    from cache_worker.view import Member, View

log = logging.getLogger("cacheop.worker")

MANIFEST_KEY = "manifest"
ORDER_MEMBERS = 6
"""How many members in rendezvous order are looked at for a chunk; after them comes the origin."""
TRIES = 4
SLOW_LOOK_SECONDS = 0.25
FETCH_SECONDS = 60.0
COPY_SECONDS = 5.0
HEARD_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Found:
    """What the cluster gave for a chunk; without data, the origin is to be read by us."""

    data: memoryview | None = None
    checksum: int | None = None
    hedged: bool = False
    """We read it for an owner that is there, but too slow."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk that is wanted."""

    version: str
    row: int
    chunk: int
    length: int


class Cluster:
    """Owns the tasks of fetches under way, which end with them, and its errands."""

    def __init__(
        self, placement: Literal["Zone", "Cluster"], members: Membership, peers: Peers
    ) -> None:
        self.health = Health()
        self._placement, self._members, self._peers = placement, members, peers
        self.me = members.view.me
        self.view: View = members.view
        self._seats = Seats(self.view.domain(placement))
        self._settled: set[str] = set()
        """Versions made while we were here and nobody came or went since: nobody else can have
        what we own of them and lack."""
        self._asked: dict[str, set[asyncio.Task[Fetched]]] = {}
        self.bans: dict[str, int] = {}
        """How often a peer was banned, by reason."""
        self._errands: set[asyncio.Task[None]] = set()
        self._change = asyncio.Event()
        self._heard = asyncio.Event()

    # -- members ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the view fresh until cancelled."""
        await self._members.run(self._see)

    def _see(self, view: View) -> None:
        before = {m.node for m in self.view.domain(self._placement)}
        gone = {m.node for m in self.view.members} - {m.node for m in view.members}
        self.view = view
        domain = view.domain(self._placement)
        self._seats = Seats(domain)
        if {m.node for m in domain} != before:
            log.info("members: %s", ", ".join(m.node for m in view.members))
            self._settled.clear()
        for node in gone:  # nobody waits for who is gone
            for task in self._asked.get(node, ()):
                task.cancel()
        self.health.keep(time.monotonic(), view.members)
        self._heard.set()
        self._change.set()

    async def heard_of_others(self) -> None:
        """Return once something was heard, or nothing is to be expected."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._heard.wait(), HEARD_SECONDS)

    async def changed(self, seconds: float) -> None:
        """Return at the next view, after `seconds` at the latest."""
        self._change.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._change.wait(), seconds)

    def announce(self, **facts: Any) -> None:
        """Tell the others what is new about us."""
        self._members.announce(replace(self._members.me, **facts))

    @property
    def my_facts(self) -> Member:
        """What we tell the others."""
        return self._members.me

    def adopted(self, version: str, *, fresh: bool) -> None:
        """A version came here; `fresh`: nobody had it before."""
        if fresh:
            self._settled.add(version)

    def lister(self) -> Member | None:
        """Who lists the origin, for all zones; None when all drain."""
        out = self._out(self.view.members)
        return keeper(MANIFEST_KEY, (m for m in self.view.members if m.node not in out))

    def lists(self) -> bool:
        """Whether that is us."""
        lister = self.lister()
        return lister is None or lister.node == self.me

    def _out(self, members: Iterable[Member]) -> frozenset[str]:
        """Who of them cannot be asked now."""
        now = time.monotonic()
        return frozenset(m.node for m in members if self.health.circuit(now, m.node) == "open")

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

    def owned(self, version: Version, row: int) -> frozenset[int]:
        """The chunks of a file that are ours."""
        content = version.index.content(row)
        chunks = range(chunk_count(version.index.size(row)))
        return frozenset(c for c in chunks if self._seats.is_mine(self.me, content, c))

    # -- asking -----------------------------------------------------------------------------------

    async def fetch(self, version: Version, row: int, chunk: int, asked: Asked | None) -> Found:
        """The chunk from whoever has it or owns it. Raises what an owner's origin said for good."""
        length = chunk_span(version.index.size(row), chunk)[1]
        wanted = Chunk(version.name, row, chunk, length)
        order = self._seats.order(version.index.content(row), chunk, ORDER_MEMBERS, draining=True)
        if asked is not None and asked.holds:
            giver = self.view.member(asked.node)
            found = await self._copy(wanted, [giver] if giver else [])
            if found.data is not None:
                return found
        failed: set[str] = set()
        for _ in range(TRIES):
            now = time.monotonic()
            slow = {m.node for m in order if self.health.is_slow(now, m.node)}
            way = route(order, self.me, asked, out=failed | self._out(order), slow=slow)
            if way.ask is None:
                if failed or version.name not in self._settled:
                    found = await self._copy(wanted, way.copies)
                    if found.data is not None:
                        return found
                return Found(hedged=way.hedged)
            if not self.health.ask(now, way.ask.node):  # somebody else tries it just now
                failed.add(way.ask.node)
                continue
            try:
                return await self._from_owner(wanted, way.ask, way.copies, asked, failed)
            except (PeerError, NotFoundError) as error:  # not found: it lacks the version
                log.info("%s did not give a chunk: %s", way.ask.node, error)
                failed.add(way.ask.node)
                if not self.health.budget.spend(time.monotonic()):
                    break
            except (OriginChanged, SuspendedError):
                raise
            except CacheopError as error:  # its way to the origin may be broken, and ours not
                log.info("%s could not read the origin: %s", way.ask.node, error)
                break
        return Found()

    async def _from_owner(
        self,
        wanted: Chunk,
        owner: Member,
        copies: Sequence[Member],
        asked: Asked | None,
        failed: Iterable[str],
    ) -> Found:
        """Ask the owner; when it takes long, others too whether they have it."""
        hops = asked.hops + 1 if asked else 1
        without = (*failed, *(asked.without if asked else ()))
        self.health.budget.request()
        task = self._ask(wanted, owner, hops=hops, without=without)
        started = time.monotonic()
        try:
            hedge_after = self.health.hedge_after_seconds(started, owner.node)
            await asyncio.wait({task}, timeout=hedge_after)
            if not task.done() and self.health.budget.spend(time.monotonic()):
                found = await self._copy(wanted, copies, unless=task)
                if found.data is not None:
                    return found
            while not task.done():
                now = time.monotonic()
                if self.health.may_hedge_to_origin(now, owner.node, now - started):
                    self.health.outrun(now, owner.node, now - started)
                    raise PeerUnavailable(f"{owner.node} is much slower than the others")
                await asyncio.wait({task}, timeout=SLOW_LOOK_SECONDS)
            return await self._result(task, owner)
        finally:
            task.cancel()

    async def _copy(
        self,
        wanted: Chunk,
        members: Sequence[Member],
        unless: asyncio.Task[Fetched] | None = None,
    ) -> Found:
        """From the first of `members` that has it. Nothing as soon as `unless` is done."""
        out = self._out(members)
        tasks = {
            self._ask(wanted, m, only_if_present=True): m for m in members if m.node not in out
        }
        waiting: set[asyncio.Task[Fetched]] = set(tasks)
        try:
            while waiting:
                others = {unless} if unless is not None else set()
                done, _ = await asyncio.wait(
                    waiting | others, return_when=asyncio.FIRST_COMPLETED, timeout=COPY_SECONDS
                )
                if not done or done & others:
                    break
                waiting -= done
                for task in done:
                    with contextlib.suppress(CacheopError):  # it has no copy: no matter why
                        return await self._result(task, tasks[task])
            return Found()
        finally:
            for task in tasks:
                task.cancel()

    def _ask(
        self,
        wanted: Chunk,
        member: Member,
        *,
        only_if_present: bool = False,
        hops: int = HOPS_MAX,
        without: Sequence[str] = (),
    ) -> asyncio.Task[Fetched]:
        task = asyncio.create_task(
            self._peers.fetch(
                member,
                wanted.version,
                wanted.row,
                wanted.chunk,
                wanted.length,
                only_if_present=only_if_present,
                hops=hops,
                without=tuple(without),
                seconds=COPY_SECONDS if only_if_present else FETCH_SECONDS,
            )
        )
        tasks = self._asked.setdefault(member.node, set())
        tasks.add(task)
        started = time.monotonic()

        def ended(done: asyncio.Task[Fetched]) -> None:
            tasks.discard(done)
            if not done.cancelled():
                self._learn(member, wanted, done.exception(), started)

        task.add_done_callback(ended)
        return task

    async def _result(self, task: asyncio.Task[Fetched], member: Member) -> Found:
        try:
            fetched = await task
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                raise
            raise PeerUnavailable(f"{member.node} left") from None
        return Found(fetched.data, fetched.checksum)

    def _learn(
        self, member: Member, wanted: Chunk, error: BaseException | None, started: float
    ) -> None:
        """What an answer says of the peer."""
        now, node = time.monotonic(), member.node
        if isinstance(error, PeerBadBytes):
            log.warning("%s gave bad bytes and is not asked for a while: %s", node, error)
            self._banned("bad_bytes", is_new=self.health.sent_bad(now, node))
            self._have_verified(member, wanted)
        elif isinstance(error, PeerUnavailable):
            if now - started >= COPY_SECONDS:
                self._banned("silent", is_new=self.health.silent(now, node))
            else:
                self.health.refused(now, node)
        elif error is None:
            self.health.answered(now, node, now - started)
        elif isinstance(error, CacheopError):  # it is there
            self.health.answered(now, node, None)

    def _banned(self, reason: str, *, is_new: bool) -> None:
        if is_new:
            self.bans[reason] = self.bans.get(reason, 0) + 1

    def _have_verified(self, member: Member, wanted: Chunk) -> None:
        """Let a peer look at the chunk that arrived damaged: if it is so on its disk, it goes."""
        meta = {"version": wanted.version, "row": wanted.row, "chunk": wanted.chunk}
        task = asyncio.create_task(self._verify_there(member, meta))
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    async def _verify_there(self, member: Member, meta: dict[str, Any]) -> None:
        try:
            await self._peers.ask(member, "verify", meta, COPY_SECONDS)
        except CacheopError as error:
            log.info("%s did not verify a chunk: %s", member.node, error)

    async def close(self) -> None:
        """Cancel the errands. The fetches are their callers'."""
        for task in list(self._errands):
            task.cancel()
        await asyncio.gather(*self._errands, return_exceptions=True)

    async def ask(
        self, member: Member, op: str, meta: dict[str, Any], seconds: float
    ) -> dict[str, Any]:
        """One question. WorkerUnavailable when there is no answer."""
        return (await self._question(member, op, meta, seconds))[0]

    async def ask_file(
        self, member: Member, meta: dict[str, Any], seconds: float
    ) -> tuple[dict[str, Any], bytes | memoryview]:
        """A piece of a manifest."""
        return await self._question(member, "file", meta, seconds)

    async def _question(
        self, member: Member, op: str, meta: dict[str, Any], seconds: float
    ) -> tuple[dict[str, Any], bytes | memoryview]:
        try:
            return await self._peers.ask(member, op, meta, seconds)
        except PeerError as error:
            raise WorkerUnavailable(f"{member.node} does not answer {op}: {error}") from error
