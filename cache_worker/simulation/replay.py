"""A policy over a trace, as the worker would use it; the dice are seeded."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from cache_worker.eviction.policy import Held
from cache_worker.hotness import units

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from cache_worker.eviction.policy import Policy
    from cache_worker.simulation.trace import Trace

NOWHERE = 0xFFFFFFFF


@dataclass(slots=True)
class Result:
    """What was read, and what of it came from the cache; without the warm-up."""

    reads: int = 0
    hits: int = 0
    bytes: int = 0
    hit_bytes: int = 0
    origin_bytes: int = 0
    """Whole chunks where they were admitted, else what was read of them."""

    @property
    def hit_ratio(self) -> float:
        """Of reads."""
        return self.hits / self.reads if self.reads else 0.0


class SimulatedCache(Held):
    """Which chunks are in a cache of `capacity_bytes`."""

    def __init__(self, chunks: int, capacity_bytes: int, lengths: Sequence[int], seed: int) -> None:
        self.used_bytes = 0
        self.capacity_bytes = capacity_bytes
        self._slots: list[int] = []
        self._place = array("I", [NOWHERE]) * chunks
        self._lengths = lengths
        self._random = Random(seed).random
        self.needed: Callable[[int], bool] | None = None
        """As of the worker's victims."""

    def __contains__(self, slot: int) -> bool:
        return self._place[slot] != NOWHERE

    def _length(self, slot: int) -> int:
        return self._lengths[slot] if self._lengths else 1

    def keep(self, slot: int) -> None:
        """Put a chunk in."""
        self._place[slot] = len(self._slots)
        self._slots.append(slot)
        self.used_bytes += self._length(slot)

    def drop(self, slot: int) -> None:
        """Take a chunk out; the last one takes its place."""
        at, last = self._place[slot], self._slots.pop()
        self._place[slot] = NOWHERE
        if last != slot:
            self._slots[at] = last
            self._place[last] = at
        self.used_bytes -= self._length(slot)

    def sample(self, count: int) -> Sequence[int]:
        """See Held."""
        slots, random = self._slots, self._random
        here = len(slots)
        if here > count:
            slots = list(dict.fromkeys([slots[int(random() * here)] for _ in range(count)]))
        if self.needed is not None:
            return [slot for slot in slots if not self.needed(slot)] or slots
        return slots

    def may_go(self, slot: int) -> bool:
        """See Held."""
        return self._place[slot] != NOWHERE

    def lengths(self, slots: Sequence[int]) -> Sequence[int]:
        """See Held."""
        known = self._lengths
        return [known[slot] for slot in slots] if known else (1,) * len(slots)

    def copies(self, slots: Sequence[int]) -> Collection[int]:
        """See Held. One node."""
        del slots
        return ()


def replay(trace: Trace, policy: Policy, capacity_bytes: int, *, seed: int = 0) -> Result:
    """Read by read: the policy hears of it, then of the miss, if it is one."""
    cache = SimulatedCache(trace.chunks, capacity_bytes, trace.lengths, seed)
    result = Result()
    names = _Streams(trace, policy)
    sizes = trace.read_bytes
    for at, (stream, slot) in enumerate(zip(trace.streams, trace.slots, strict=True)):
        whole = cache.lengths((slot,))[0]
        part = sizes[at] if sizes else whole
        policy.read(names.of(stream, slot), (slot,), (units(part, whole),) if sizes else None)
        hit = slot in cache
        fetched = 0 if hit else (whole if admit(cache, policy, slot, whole) else part)
        if at >= trace.warm:
            result.reads += 1
            result.hits += hit
            result.bytes += part
            result.hit_bytes += part if hit else 0
            result.origin_bytes += fetched
    return result


def admit(
    cache: SimulatedCache, policy: Policy, slot: int, length: int, *, ahead: bool = False
) -> bool:
    """Make room for a chunk and put it in; False if the policy does not admit it.

    `ahead`: a plan says that it is read in a moment.
    """
    need = cache.used_bytes + length - cache.capacity_bytes
    if need > 0:
        gone = policy.victims(cache, need, None if ahead else slot)
        if not gone:
            return False
        for victim in gone:
            cache.drop(victim)
            policy.dropped(victim)
    cache.keep(slot)
    policy.kept(slot)
    return True


class _Streams:
    """A stream of the policy is one of the trace on one version; plans are told by epochs."""

    def __init__(self, trace: Trace, policy: Policy) -> None:
        self._trace, self._policy = trace, policy
        self._names: dict[tuple[int, range], int] = {}
        self._one = trace.versions[0] if len(trace.versions) == 1 else None
        self._orders: dict[int, array[int]] = {}
        self._reads: dict[int, int] = {}
        if trace.plans:
            for stream, slot in zip(trace.streams, trace.slots, strict=True):
                self._orders.setdefault(stream, array("I")).append(slot)

    def of(self, stream: int, slot: int) -> int:
        version = self._one or self._trace.version_of(slot)
        name = self._names.get((stream, version))
        if name is None:
            name = self._names[stream, version] = len(self._names)
            self._policy.joined(name, version)
        if self._trace.plans:
            self._tell(stream, name)
        return name

    def _tell(self, stream: int, name: int) -> None:
        """At the start of each epoch the next one's order; at the very start the first two."""
        epoch, done = self._trace.epoch_reads, self._reads.get(stream, 0)
        self._reads[stream] = done + 1
        if done % epoch == 0:
            first = 0 if done == 0 else done + epoch
            self._policy.planned(name, self._orders[stream][first : done + 2 * epoch])
