"""What the client keeps of its requests and threads: plain data, guarded by its lock."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import asyncio
    import threading

    from cache_worker.peers.link import Callee, Link
    from cache_worker.peers.messages import Wanted
    from cache_worker.peers.waiting import Line


@dataclass(frozen=True, slots=True)
class Limits:
    """What we take of others, and of our memory."""

    connections: int = 4
    """To one peer, for chunks that it may have to get from elsewhere."""
    leaf_connections: int = 4
    """To one peer, for each kind of request that it answers without asking others."""
    flight_bytes: int = 96 << 20
    """What may be on its way from all peers, for each of the two kinds."""
    idle_seconds: float = 10.0
    """A connection without work is closed after this."""
    stall_seconds: float = 5.0
    """A peer that stops in the middle of an answer is given up after this."""


class Key(NamedTuple):
    """What may go over one connection together."""

    callee: Callee
    op: str
    version: str = ""
    only_if_present: bool = False
    hops: int = 0
    without: tuple[str, ...] = ()

    @property
    def is_leaf(self) -> bool:
        """Whether the peer answers this without asking others."""
        return self.op == "get" and (self.only_if_present or self.hops > 1)


@dataclass(eq=False, slots=True)
class Job:
    """One answer that somebody waits for."""

    number: int
    length: int
    deadline: float
    future: asyncio.Future[Any]
    wanted: Wanted | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    gone: bool = False
    link: Link | None = None
    flying: bool = False
    """Counted in what is on its way."""


@dataclass(eq=False, slots=True)
class Seat:
    """A thread that waits to be called."""

    wake: threading.Condition
    called: bool = True
    """Counted in `Lane.coming`, as a thread is that was just started."""


@dataclass(eq=False, slots=True)
class Lane:
    """What waits for one peer with one purpose, and the threads that serve it."""

    key: Key
    limit: int
    same_zone: bool
    line: Line[Job]
    threads: int = 0
    coming: int = 0
    """Threads that were called and did not look at the line yet."""
    idle: list[Seat] = field(default_factory=list)
