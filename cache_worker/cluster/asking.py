"""Asks peers, and learns from what they answer, or do not, how they do (health.py decides)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cache_worker.cluster.health import Health
from cache_worker.cluster.pace import Pace
from cache_worker.cluster.route import HOPS_MAX
from cache_worker.peers.errors import PeerBadBytes, PeerError, PeerUnavailable
from cacheop.api.errors import CacheopError, WorkerUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cache_worker.cluster.view import Member
    from cache_worker.peers.client import Peers
    from cache_worker.peers.link import Fetched

log = logging.getLogger("cacheop.worker")

SLOW_LOOK_SECONDS = 0.25
FETCH_SECONDS = 60.0
COPY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Found:
    """What the cluster gave for a chunk; without data, the origin is to be read by us."""

    data: memoryview | None = None
    checksum: int | None = None
    hedged: bool = False
    """We read it for an owner that is there, but too slow."""


class PeerSlow(PeerUnavailable):
    """It is there, but others act in its place."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk that is wanted."""

    version: str
    row: int
    chunk: int
    length: int


class Asking:
    """Owns the tasks of what is asked, which end with their callers, and its errands."""

    def __init__(self, peers: Peers) -> None:
        self.health = Health()
        self.pace = Pace()
        self.bans = {"bad_bytes": 0, "silent": 0}
        """How often a peer was banned, by reason."""
        self._peers = peers
        self._asked: dict[str, set[asyncio.Task[Fetched]]] = {}
        self._errands: set[asyncio.Task[None]] = set()

    def out(self, members: Iterable[Member]) -> frozenset[str]:
        """Who of them cannot be asked now."""
        now = time.monotonic()
        return frozenset(m.node for m in members if self.health.circuit(now, m.node) == "open")

    def left(self, node: str) -> None:
        """It is no member any more: nobody waits for it."""
        for task in self._asked.pop(node, ()):
            task.cancel()

    async def from_owner(
        self,
        wanted: Chunk,
        owner: Member,
        copies: Sequence[Member],
        hops: int,
        without: Sequence[str],
    ) -> Found:
        """Ask the owner; when it takes long, others too whether they have it."""
        self.health.budget.request()
        task = self._ask(wanted, owner, hops=hops, without=without)
        started = time.monotonic()
        try:
            hedge_after = self.health.hedge_after_seconds(started, owner.node)
            await asyncio.wait({task}, timeout=hedge_after)
            if not task.done() and self.health.budget.spend(time.monotonic()):
                found = await self.copy(wanted, copies, unless=task)
                if found.data is not None:
                    return found
            while not task.done():
                now = time.monotonic()
                self.pace.saw(now, owner.node, self._peers.received.by_node.get(owner.node, 0))
                if reason := self.slowness(now, owner.node, now - started):
                    self.health.outrun(now, owner.node, now - started)
                    raise PeerSlow(f"{owner.node} is too slow: {reason}")
                await asyncio.wait({task}, timeout=SLOW_LOOK_SECONDS)
            return await self._result(task, owner)
        finally:
            task.cancel()

    def is_slow(self, now: float, node: str, waited_seconds: float = 0.0) -> bool:
        """Whether others are to act in its place."""
        return bool(self.slowness(now, node, waited_seconds))

    def slowness(self, now: float, node: str, waited_seconds: float = 0.0) -> str:
        """Why others are to act in its place; "" where the origin would be no sooner there."""
        reason = ""
        if self.pace.is_slow(now, node):
            reason = "it sends ten times fewer bytes a second than the others"
        elif self.pace.origin_answers_within(
            now, max(waited_seconds, self.health.p50_seconds(now, node) or 0.0)
        ):
            if self.health.is_slow(now, node):
                reason = "half of its chunks take ten times as long as the others'"
            elif self.health.may_hedge_to_origin(now, node, waited_seconds):
                reason = f"it took {waited_seconds:.1f} s so far, ten times as long as the others"
        # Last, for each request asks this of a few nodes, and hardly one of them is slow.
        return reason if reason and self.pace.origin_may_be_faster(now, node) else ""

    async def copy(
        self,
        wanted: Chunk,
        members: Sequence[Member],
        unless: asyncio.Task[Fetched] | None = None,
    ) -> Found:
        """From the first of `members` that has it. Nothing as soon as `unless` is done."""
        out = self.out(members)
        tasks = {
            self._ask(wanted, m, only_if_present=True, seconds=COPY_SECONDS): m
            for m in members
            if m.node not in out
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

    async def given(self, wanted: Chunk, member: Member) -> Found:
        """What `member` told that it has; nothing when it has it no more, or cannot be asked."""
        if self.out([member]):
            return Found()
        task = self._ask(wanted, member, only_if_present=True, ahead=True)
        try:
            while not (await asyncio.wait({task}, timeout=SLOW_LOOK_SECONDS))[0]:
                if self.is_slow(time.monotonic(), member.node):  # readers may have joined
                    return Found()
            return await self._result(task, member)
        except CacheopError as error:
            log.info("%s did not give what it told of: %s", member.node, error)
            return Found()
        finally:
            task.cancel()

    def _ask(
        self,
        wanted: Chunk,
        member: Member,
        *,
        only_if_present: bool = False,
        hops: int = HOPS_MAX,
        without: Sequence[str] = (),
        seconds: float = FETCH_SECONDS,
        ahead: bool = False,
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
                seconds=seconds,
            )
        )
        tasks = self._asked.setdefault(member.node, set())
        tasks.add(task)
        started = time.monotonic()
        sent, node = self._peers.received.by_node, member.node
        if not only_if_present:  # who has nothing to send is not slow
            self.pace.asks(started, node, sent.get(node, 0), wanted.length)

        def ended(done: asyncio.Task[Fetched]) -> None:
            tasks.discard(done)
            if not only_if_present:
                self.pace.ended(time.monotonic(), node, sent.get(node, 0))
            if not done.cancelled():
                self._learn(member, wanted, done.exception(), started, ahead=ahead)

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
        self,
        member: Member,
        wanted: Chunk,
        error: BaseException | None,
        started: float,
        *,
        ahead: bool,
    ) -> None:
        """What an answer says of the peer; one `ahead` of readers waits behind theirs."""
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
            self.health.answered(now, node, None if ahead else now - started)
        elif isinstance(error, CacheopError):  # it is there
            self.health.answered(now, node, None)

    def _banned(self, reason: str, *, is_new: bool) -> None:
        if is_new:
            self.bans[reason] += 1

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
