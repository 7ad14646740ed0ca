"""Auto, that is NextUse: keep what is wanted most for its bytes, and what is dear to fetch. Pure.

The worth of a chunk is its expected demand (regions.py: the sum over all jobs) x what a refill
costs / its bytes. Victims are the least worth of a sample; a newcomer that is worth no more than
they are is not admitted. On shuffled epochs this keeps what is there, on hot spots the hottest, and
it finds out by itself which of the two it is looking at. See docs/decisions/eviction.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cache_worker.eviction.policy import Held, Policy
from cache_worker.eviction.regions import Region
from cache_worker.eviction.sampling import lowest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

REGIONS = 4
"""So many versions are remembered; of more, the one that was read longest ago is forgotten."""


@dataclass(frozen=True, slots=True)
class Refill:
    """What it costs to get a chunk again, from the origin or, where there is a copy, a peer."""

    origin_seconds: float = 0.04
    origin_bytes_per_second: float = 0.8e9
    peer_seconds: float = 0.0005
    peer_bytes_per_second: float = 4.7e9

    def per_byte(self, *, copy: bool) -> list[float]:
        """Seconds a byte, by the bit length of the chunk's size.

        By powers of two, so that chunks of about one size do not change places for nothing.
        """
        seconds = self.peer_seconds if copy else self.origin_seconds
        rate = self.peer_bytes_per_second if copy else self.origin_bytes_per_second
        return [seconds / (1 << bits) + 1.0 / rate for bits in range(33)]


class Auto(Policy):
    """Three bytes a chunk, and eight for each plan."""

    def __init__(self, refill: Refill | None = None) -> None:
        self._cost = (refill or Refill()).per_byte(copy=False)
        self._copy_cost = (refill or Refill()).per_byte(copy=True)
        self._regions: dict[range, Region] = {}
        self._of: dict[int, Region] = {}
        self._clock = 0

    def joined(self, stream: int, chunks: range) -> None:
        """See Policy."""
        if chunks not in self._regions and len(self._regions) >= REGIONS:
            oldest = min(self._regions.values(), key=lambda region: region.heard)
            del self._regions[oldest.chunks]
        region = self._regions.setdefault(chunks, Region(chunks))
        region.join(stream)
        self._of[stream] = region

    def left(self, stream: int) -> None:
        """See Policy."""
        region = self._of.pop(stream, None)
        if region is not None:
            region.leave(stream)

    def read(self, stream: int, slots: Sequence[int], units: Sequence[int] | None = None) -> None:
        """See Policy."""
        self._clock += len(slots)
        self._of[stream].read(stream, slots, units, self._clock)

    def planned(
        self, stream: int, slots: Iterable[int], at: Iterable[int] | None = None, ranks: int = 1
    ) -> None:
        """See Policy."""
        self._of[stream].plan(stream, slots, at, ranks)

    def reached(self, stream: int, position: int) -> None:
        """See Policy."""
        self._of[stream].reached(stream, position)

    def unplanned(self, stream: int) -> None:
        """See Policy."""
        self._of[stream].unplan(stream)

    def victims(self, held: Held, need_bytes: int, newcomer: int | None = None) -> list[int]:
        """See Policy."""

        def values(slots: Sequence[int], lengths: Sequence[int]) -> list[float]:
            return self._worth(held, slots, lengths)

        if newcomer is None:
            return lowest(held, need_bytes, values)
        worth = self._worth(held, (newcomer,), held.lengths((newcomer,)), newcomer)[0]
        return lowest(held, need_bytes, values, newcomer=newcomer, worth=worth)

    def _worth(
        self, held: Held, slots: Sequence[int], lengths: Sequence[int], newcomer: int = -1
    ) -> list[float]:
        sole, copy, copies = self._cost, self._copy_cost, held.copies(slots)
        demand = self._demand(slots, newcomer)
        worth = [
            value * sole[length.bit_length()] for value, length in zip(demand, lengths, strict=True)
        ]
        if copies:
            for at, slot in enumerate(slots):
                if slot in copies:
                    worth[at] = demand[at] * copy[lengths[at].bit_length()]
        return worth

    def _demand(self, slots: Sequence[int], newcomer: int) -> list[float]:
        low, high = min(slots), max(slots)
        demand: list[float] | None = None
        for region in self._regions.values():
            chunks = region.chunks
            if chunks.start <= low and high < chunks.stop:
                found = region.demand(slots, self._clock, newcomer)
            else:
                found = [0.0] * len(slots)
                here = [at for at, slot in enumerate(slots) if slot in chunks]
                values = region.demand([slots[at] for at in here], self._clock, newcomer)
                for at, value in zip(here, values, strict=True):
                    found[at] = value
            demand = [a + b for a, b in zip(demand, found, strict=True)] if demand else found
        return demand or [0.0] * len(slots)
