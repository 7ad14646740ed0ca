"""Whom to ask for a chunk that is not here. Pure.

Its owner reads it from the origin, everybody else asks the owner. Who cannot be asked is passed
over: then the next in rendezvous order acts as owner. A request that was passed on once is answered
from the origin, so nodes that see different members cause neither loops nor waits for each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from cache_worker.cluster.view import Member

HOPS_MAX = 2
ORDER_MEMBERS = 6
"""How many members in rendezvous order are looked at for a chunk; after them comes the origin."""
COPIES = 2
"""How many others are asked whether they happen to have it."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A peer wants a chunk of us."""

    node: str
    hops: int = 1
    """1: for its own readers; more: it was asked itself."""
    without: frozenset[str] = frozenset()
    """Whom it could not get it from."""
    holds: bool = False
    """It has the chunk, and wants us to have it too (drain)."""


@dataclass(eq=False, slots=True)
class Flight:
    """A chunk on its way here.

    Who asks with `n` hops waits only for flights that ask with more. So nobody waits for itself by
    way of others, whatever each of them sees.
    """

    hops: int = HOPS_MAX + 1
    """Of the question to another owner that it waits for; more than any: it waits for none."""

    def may_be_joined(self, asked: Asked | None) -> bool:
        """Whether this one's result may be waited for on behalf of who asked."""
        return asked is None or self.hops > asked.hops


@dataclass(frozen=True, slots=True)
class Route:
    """What to do next."""

    ask: Member | None
    """Who is to get it from the origin for us; None: we do."""
    copies: tuple[Member, ...]
    """Who may have it, likeliest first."""
    instead: bool = False
    """We act for an owner that cannot be asked: others may have got it from there before."""
    hedged: bool = False
    """That owner is there, but too slow."""

    def hops(self, asked: Asked | None) -> int:
        """See Flight."""
        if self.ask is None:
            return HOPS_MAX + 1
        return asked.hops + 1 if asked else 1


def route(
    order: Sequence[Member],
    me: str,
    asked: Asked | None,
    *,
    out: Collection[str],
    slow: Collection[str],
    copies: int = COPIES,
) -> Route:
    """`order`: all members in rendezvous order, those that drain too. `out`: they cannot be asked;
    `slow`: they can, but it takes too long. At most `copies` others may have it.
    """
    passed = {*out, *slow}
    if asked is not None:
        passed |= {asked.node, *asked.without}
    owners = [member for member in order if not member.draining]
    acting = next((m for m in owners if m.node == me or m.node not in passed), None)
    if acting is not None and (acting.node == me or (asked and asked.hops >= HOPS_MAX)):
        acting = None
    given_up = asked.without if asked else frozenset()
    avoided = {me, *out, *slow, *given_up}
    avoided |= {acting.node if acting else me, asked.node if asked else me}
    having = tuple(m for m in order if m.node not in avoided)[:copies]
    first = owners[0].node if owners else me
    instead = acting is None and first != me
    return Route(acting, having, instead, hedged=instead and first in {*slow, *given_up})
