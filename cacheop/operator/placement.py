"""On which nodes a Dataset has workers, and which of them must hand over first. Pure.

`replicas` nodes keep one always; others have one while a pod uses the Dataset there, and
`worker.idle` longer. Nodes are named by us, so nothing moves that need not: who has chunks keeps
its worker, the rest is by rendezvous of (uid, node). A worker that is to go hands over what only it
has, if there is somebody to take it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cacheop.operator.eligibility import refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cacheop.api.dataset import DatasetSpec
    from cacheop.operator.facts import Node


@dataclass(frozen=True, slots=True)
class Situation:
    """What placement depends on. Times are seconds of one clock."""

    now: float
    nodes: Mapping[str, Node]
    current: frozenset[str]
    """Nodes that the DaemonSet names now."""
    serving: frozenset[str] = frozenset()
    """Of these, where a ready worker is."""
    in_use: frozenset[str] = frozenset()
    """Nodes with a pod that uses the Dataset."""
    holding: frozenset[str] = frozenset()
    """Nodes that hold chunks, also those without a worker."""
    last_use: Mapping[str, float] = field(default_factory=dict)
    wake: bool = False
    """Something needs a worker wherever it is: a load."""
    drains: Mapping[str, Drain] = field(default_factory=dict)
    drain_seconds: float = 300.0


@dataclass(frozen=True, slots=True)
class Drain:
    """A worker that was told to hand over."""

    since: float
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Placement:
    """Where workers are to be."""

    nodes: tuple[str, ...]
    """What the DaemonSet is to name, sorted; those that hand over included."""
    keeping: frozenset[str]
    """Nodes that are to have a worker as far as one can see."""
    drain: frozenset[str]
    """Nodes whose worker is to hand over what only it has."""
    again_at: float | None = None
    """When this may be different though nothing happened."""


def weight(uid: str, node: str) -> int:
    """Rendezvous: the same order of nodes for a Dataset each time, another for each Dataset."""
    return int.from_bytes(hashlib.blake2b(f"{uid}:{node}".encode(), digest_size=8).digest())


def place(spec: DatasetSpec, uid: str, seen: Situation) -> Placement:
    """Where workers of the Dataset are to be now."""
    fits = frozenset(name for name, node in seen.nodes.items() if not refusal(spec, node))
    staying = frozenset(name for name in fits if not seen.nodes[name].leaving)
    base = _base(spec, uid, seen, staying)
    lingering, again_at = _lingering(spec, seen, staying - base)
    keeping = base | (seen.in_use & fits) | lingering
    takers = {name for name in keeping & seen.serving if not seen.nodes[name].leaving}
    leaving = frozenset(
        name
        for name in seen.serving & (seen.current | keeping)
        if (name not in keeping or name not in staying) and takers - {name}
    )
    handing_over = set()
    for name in leaving - keeping:
        drain = seen.drains.get(name)
        if drain is None or not (drain.ended or drain.since + seen.drain_seconds <= seen.now):
            handing_over.add(name)
            until = seen.now if drain is None else drain.since
            again_at = _earlier(again_at, until + seen.drain_seconds)
    # A node that is no more cannot be named; one that merely left stays until its worker has gone.
    there = frozenset(seen.nodes)
    return Placement(
        nodes=tuple(sorted((keeping | handing_over) & there)),
        keeping=keeping & there,
        drain=leaving & there,
        again_at=again_at,
    )


def _base(spec: DatasetSpec, uid: str, seen: Situation, staying: frozenset[str]) -> frozenset[str]:
    """The nodes that keep a worker whether it is used or not."""
    if spec.all_nodes:
        return staying
    count = max(spec.replicas, 1 if seen.wake else 0)

    def rank(name: str) -> tuple[int, int]:
        if name in seen.serving:
            known = 0
        elif name in seen.current or name in seen.holding:
            known = 1
        else:
            known = 2
        return known, -weight(uid, name)

    # Among those that are ready first: a worker on a node that is away serves nobody.
    order = sorted(staying, key=lambda name: (not seen.nodes[name].ready, *rank(name)))
    chosen = order[:count]
    if len(chosen) < count:  # better on a node that will go than nowhere
        rest = sorted(seen.current & frozenset(seen.nodes) - frozenset(chosen), key=rank)
        chosen += [n for n in rest if not refusal(spec, seen.nodes[n])][: count - len(chosen)]
    return frozenset(chosen)


def _lingering(
    spec: DatasetSpec, seen: Situation, candidates: frozenset[str]
) -> tuple[frozenset[str], float | None]:
    """Nodes whose last use is not long ago, and when the first of them is idle for long enough."""
    found, again_at = set(), None
    for name in candidates & seen.current - seen.in_use:
        until = seen.last_use.get(name, seen.now) + spec.worker.idle_seconds
        if until > seen.now:
            found.add(name)
            again_at = _earlier(again_at, until)
    return frozenset(found), again_at


def _earlier(one: float | None, other: float) -> float:
    return other if one is None else min(one, other)
