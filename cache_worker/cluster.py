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
from cache_worker.peers.errors import PeerAbsent, PeerBadBytes, PeerError, PeerUnavailable
from cache_worker.placement import Seats, keeper
from cache_worker.route import HOPS_MAX, Asked, route
from cacheop.api.chunk import chunk_count, chunk_span
from cacheop.api.errors import CacheopError, OriginChanged, SuspendedError, WorkerUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Literal

    from cache_worker.members.membership import Membership
    from cache_worker.peers.client import Fetched, Peers
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
    """Owns no task but those of the fetches under way, which end with them."""

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
        live = [m for m in self.view.members if m.node not in self.health.out(time.monotonic())]
        return keeper(MANIFEST_KEY, live)

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
        order = self._seats.order(
            version.index.content(row), chunk, ORDER_MEMBERS, draining=True
        )
        if asked is not None and asked.holds:
            giver = self.view.member(asked.node)
            found = await self._copy(wanted, [giver] if giver else [])
            if found.data is not None:
                return found
        failed: set[str] = set()
        for _ in range(TRIES):
            now = time.monotonic()
            way = route(
                order,
                self.me,
                asked,
                out=failed | self.health.out(now),
                slow=self.health.slow(now),
            )
            if way.ask is None:
                if failed or version.name not in self._settled:
                    found = await self._copy(wanted, way.copies)
                    if found.data is not None:
                        return found
                return Found(hedged=way.hedged)
            try:
                return await self._from_owner(wanted, way.ask, way.copies, asked, failed)
            except PeerError as error:
                log.info("%s did not give a chunk: %s", way.ask.node, error)
                failed.add(way.ask.node)
                if not self.health.may_retry(time.monotonic()):
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
        task = self._ask(wanted, owner, hops=hops, without=without)
        started = time.monotonic()
        try:
            await asyncio.wait({task}, timeout=self.health.hedge_after_seconds(owner.node))
            if not task.done() and self.health.may_retry(time.monotonic()):
                found = await self._copy(wanted, copies, unless=task)
                if found.data is not None:
                    return found
            while not task.done():
                waited = time.monotonic() - started
                if self.health.is_slow(owner.node, time.monotonic(), waited):
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
        out = self.health.out(time.monotonic())
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
            self.health.bad_bytes(node, now)
            if self.view.member(node):
                meta = {"version": wanted.version, "row": wanted.row, "chunk": wanted.chunk}
                self._peers.tell(member, "verify", meta)
        elif isinstance(error, PeerUnavailable):
            self.health.failed(node, now)
        elif error is None:
            self.health.answered(node, now, now - started)
        elif isinstance(error, CacheopError):  # it is there
            self.health.alive(node, now)

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
        except (PeerAbsent, PeerUnavailable, PeerBadBytes) as error:
            raise WorkerUnavailable(f"{member.node} does not answer {op}: {error}") from error
