"""Which members a chunk belongs to: weighted rendezvous hashing. Pure.

Every member draws a number for every chunk, from the chunk and its own name alone, and the best one
owns it. Who joins or leaves changes nobody else's numbers: only what it wins, or had won, moves.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from xxhash import xxh3_64_digest, xxh3_64_intdigest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cache_worker.cluster.view import Member

WEIGHT_BITS = 5
"""Leading bits of a capacity that count: steps of 1/16 of the power of two below it."""


class Equals(NamedTuple):
    """Members of one weight, by node, and what each draws its numbers with."""

    weight: int
    members: tuple[Member, ...]
    seeds: tuple[int, ...]


class Seats:
    """The members of a failure domain, made ready to place many chunks.

    `content` is the 16-byte key of a file, `Index.content(row)`.
    """

    __slots__ = ("_all", "classes", "owning")

    def __init__(self, members: Iterable[Member]) -> None:
        everyone = tuple(members)
        self._all = _by_weight(everyone)
        self.classes = _by_weight(m for m in everyone if not m.draining)
        self.owning = tuple(m for equals in self.classes for m in equals.members)
        """Who owns chunks: all but those that drain. In the order of `classes`."""

    def owner(self, content: bytes, chunk: int) -> Member | None:
        """The first in `order`; None when all drain."""
        place = xxh3_64_digest(content, chunk)
        best = []
        for weight, members, seeds in self.classes:
            hashes = [xxh3_64_intdigest(place, seed) for seed in seeds]
            largest = max(hashes)
            best.append((largest, weight, members[hashes.index(largest)]))
        if len(best) == 1:
            return best[0][2]
        return min(best, key=rank)[2] if best else None

    def order(
        self, content: bytes, chunk: int, count: int, *, draining: bool = False
    ) -> tuple[Member, ...]:
        """The first `count` members for a chunk; with `draining`, those that leave among them.

        A draining member stands where it stood before it drained, so it may come before the owner.
        """
        place = xxh3_64_digest(content, chunk)
        found: list[tuple[int, int, Member]] = []
        for weight, members, seeds in self._all if draining else self.classes:
            hashes = (xxh3_64_intdigest(place, seed) for seed in seeds)
            drawn = ((number, weight, m) for number, m in zip(hashes, members, strict=True))
            found += heapq.nsmallest(count, drawn, key=_hash_first)
        return tuple(member for _, _, member in sorted(found, key=rank)[:count])

    def is_mine(self, node: str, content: bytes, chunk: int, replicas: int = 1) -> bool:
        """Whether `node` is among the first `replicas` for a chunk."""
        if replicas == 1:
            owner = self.owner(content, chunk)
            return owner is not None and owner.node == node
        return any(m.node == node for m in self.order(content, chunk, replicas))


def keeper(name: str, members: Iterable[Member]) -> Member | None:
    """Who looks after something that has a name, like `manifest`; None when all drain.

    Capacities do not count, and `members` are those of the whole cluster.
    """
    place = xxh3_64_digest(name.encode())
    drawn = [(xxh3_64_intdigest(place, seed_of(m.node)), 1, m) for m in members if not m.draining]
    return min(drawn, key=_hash_first)[2] if drawn else None


def weight_of(capacity_bytes: int) -> int:
    """The capacity, rounded so coarsely that a disk a little larger or smaller weighs the same."""
    dropped = capacity_bytes.bit_length() - WEIGHT_BITS
    if dropped <= 0:
        return max(1, capacity_bytes)
    return (capacity_bytes + (1 << (dropped - 1))) >> dropped << dropped


def seed_of(node: str) -> int:
    """What a member draws its numbers with."""
    return xxh3_64_intdigest(node.encode())


def rank(drawn: tuple[int, int, Member]) -> tuple[float, int, str]:
    """Sorts (hash, weight, member): the smallest -ln(u)/weight is first, u uniform in (0, 1).

    With one weight that is the largest hash, so a logarithm is needed only between weights.
    """
    number, weight, member = drawn
    return -math.log((number + 0.5) / 2**64) / weight, -number, member.node


def _hash_first(drawn: tuple[int, int, Member]) -> tuple[int, str]:
    return -drawn[0], drawn[2].node


def _by_weight(members: Iterable[Member]) -> tuple[Equals, ...]:
    found: dict[int, list[Member]] = defaultdict(list)
    for member in sorted(members, key=lambda m: m.node):
        found[weight_of(member.capacity_bytes)].append(member)
    return tuple(
        Equals(weight, tuple(some), tuple(seed_of(m.node) for m in some))
        for weight, some in sorted(found.items())
    )
