"""The offline optimum: drop what is used last, admit nothing that is used later (MIN). Pure.

For chunks of one size; all of the trace is known.
"""

from __future__ import annotations

import heapq
from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

NEVER = 1 << 40


def hit_ratio(slots: Sequence[int], capacity: int, warm: int) -> float:
    """Of the reads after the first `warm`, with room for `capacity` chunks."""
    following = _following(slots)
    inside: dict[int, int] = {}  # chunk -> the position of its next use
    heap: list[tuple[int, int]] = []  # (-next use, chunk); stale where `inside` says otherwise
    hits = 0
    for at, slot in enumerate(slots):
        again = following[at]
        if slot in inside:
            hits += at >= warm
        elif len(inside) >= capacity:
            while heap and inside.get(heap[0][1]) != -heap[0][0]:
                heapq.heappop(heap)
            if not heap or again >= -heap[0][0]:
                continue
            del inside[heapq.heappop(heap)[1]]
        inside[slot] = again
        heapq.heappush(heap, (-again, slot))
    return hits / (len(slots) - warm)


def _following(slots: Sequence[int]) -> array[int]:
    """For each read the position of the next one of the same chunk."""
    following = array("Q", [NEVER]) * len(slots)
    last: dict[int, int] = {}
    for at in range(len(slots) - 1, -1, -1):
        following[at] = last.get(slots[at], NEVER)
        last[slots[at]] = at
    return following
