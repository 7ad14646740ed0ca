"""Peers and members without sockets: each node's answers are a function of the test's."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import xxhash

from cache_worker.cluster.cluster import Cluster
from cache_worker.cluster.view import Member
from cache_worker.members.membership import Membership
from cache_worker.peers.errors import PeerAbsent
from cache_worker.peers.link import Fetched
from cache_worker.peers.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class GivenMembers(Membership):
    """Who is there is the test's to say."""

    async def run(self, changed: Any) -> None:
        self._changed = changed
        await asyncio.Event().wait()

    def now(self, *others: Member) -> None:
        self._see(others)


@dataclass
class Ask:
    node: str
    only_if_present: bool
    hops: int
    without: tuple[str, ...]


@dataclass
class PeersInMemory:
    """`give[node]` answers get, `copy[node]` those with only_if_present: bytes, or it raises."""

    give: dict[str, Callable[[], Awaitable[bytes]]] = field(default_factory=dict)
    copy: dict[str, Callable[[], Awaitable[bytes]]] = field(default_factory=dict)
    asked: list[Ask] = field(default_factory=list)
    questions: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    received: Traffic = field(default_factory=Traffic)

    async def fetch(self, member, version, row, chunk, length, **how) -> Fetched:
        seconds = how.pop("seconds")
        self.asked.append(Ask(member.node, **how))
        answers = self.copy if how["only_if_present"] else self.give
        if member.node not in answers:
            raise PeerAbsent(f"{member.node} has it not")
        try:
            async with asyncio.timeout(seconds):
                data = await answers[member.node]()
        except asyncio.CancelledError:
            self.cancelled.append(member.node)
            raise
        return Fetched(memoryview(data), xxhash.xxh3_64_intdigest(data))

    async def ask(self, member, op, meta, seconds) -> tuple[dict[str, Any], bytes]:
        self.questions.append((member.node, op, meta))
        return {}, b""

    def owners(self) -> list[str]:
        return [ask.node for ask in self.asked if not ask.only_if_present]

    def copies(self) -> list[str]:
        return [ask.node for ask in self.asked if ask.only_if_present]


class Files:
    """An index of files of one chunk."""

    def content(self, row: int) -> bytes:
        return row.to_bytes(16, "little")

    def size(self, row: int) -> int:
        return 100


@dataclass
class AnyVersion:
    name: str = "v1"
    index: Files = field(default_factory=Files)


class ClusterOf:
    """The Cluster of node `me` among `nodes`, its members and its peers. A context manager."""

    def __init__(self, me: str, nodes: str = "abcd") -> None:
        self.all = {node: Member(node, f"{node}:1", capacity_bytes=1 << 30) for node in nodes}
        others = [member for member in self.all.values() if member.node != me]
        self.members = GivenMembers(self.all[me], others)
        self.peers = PeersInMemory()
        self.cluster = Cluster("Zone", self.members, self.peers)
        self.members._changed = self.cluster._see  # before `run`, too
        self.version = AnyVersion()

    def row_of(self, *order: str) -> int:
        """A file whose chunk these members own, in this order."""
        for row in range(10_000):
            found = self.cluster._order(self.version, row, 0)
            if tuple(m.node for m in found[: len(order)]) == order:
                return row
        raise AssertionError(order)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self.cluster.run())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cluster.close()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
