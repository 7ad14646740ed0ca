"""Who is in the cluster: members and views of them, plain data. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal, Protocol

    class Members(Protocol):
        """Where views come from: static.py, redis.py. Owned by the worker, runs on its loop."""

        view: View
        """The last view; never empty, as we are in it. Stays as it was when nothing is heard."""

        def announce(self, me: Member) -> None:
            """What others are to know of us from now on."""
            ...

        async def run(self, changed: Callable[[View], None]) -> None:
            """Keep `view` fresh until cancelled; call `changed` with each new one."""
            ...


@dataclass(frozen=True, slots=True, order=True)
class Member:
    """One worker of the Dataset, as it announced itself."""

    node: str
    address: str = ""
    """host:port where it serves peers."""
    zone: str = ""
    capacity_bytes: int = 1
    """Its quota: the share of chunks it owns follows from it."""
    draining: bool = False
    """It leaves: it owns nothing any more, but still gives what it has."""
    instance: str = ""
    """Another one after every start of the worker."""
    version: str = ""
    """Its current version; empty before the first."""
    generation: int = 0
    """Counts the versions that were made: the member with the largest has the newest version."""
    joined: int = 0
    """Larger for who joined later; 0 = from the beginning. Of one clock, or counter, for all."""


@dataclass(frozen=True, slots=True)
class View:
    """The live members, by node, the one that looks among them."""

    me: str
    members: tuple[Member, ...]
    epoch: int = 0
    """Counts the views that this worker has had."""

    def member(self, node: str) -> Member | None:
        """The member of that name, if it is live."""
        return next((m for m in self.members if m.node == node), None)

    def domain(self, placement: Literal["Zone", "Cluster"]) -> tuple[Member, ...]:
        """The members of our failure domain: those of our zone, or all."""
        me = self.member(self.me)
        if placement == "Cluster" or me is None:
            return self.members
        return tuple(m for m in self.members if m.zone == me.zone)
