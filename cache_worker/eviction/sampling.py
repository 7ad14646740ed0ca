"""Choosing the least valuable of some at random: no heap over a million chunks. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cache_worker.eviction.policy import Held

CANDIDATES = 64
"""For one victim; enough to be among the lowest 1.5 % (LRB's figure)."""
EACH = 8
"""Candidates for each further victim of one call: 64 victims come from 576."""
MOST = 4096
BETTER = 1.0001
"""A newcomer must be worth so much more: equal ones would change places for nothing."""


def lowest(
    held: Held,
    need_bytes: int,
    values: Callable[[Sequence[int]], list[float]],
    *,
    newcomer: int | None = None,
    worth: float = float("inf"),
) -> list[int]:
    """Chunks of the lowest value for `need_bytes`, all worth less than `worth`: see Policy.victims.

    `values` gives each chunk's value per byte.
    """
    chosen: dict[int, None] = {}
    typical_bytes = need_bytes
    while need_bytes > 0:
        further = min(MOST, EACH * (need_bytes // max(1, typical_bytes)))
        slots = list(dict.fromkeys(held.sample(CANDIDATES + further)))
        if chosen:
            slots = [slot for slot in slots if slot not in chosen]
        if not slots:
            break
        typical_bytes = held.length(slots[0])
        found = values(slots)
        # Of one sample only the lowest eighth: the rest is no better than chance.
        count = max(1, len(slots) // EACH)
        limit = sorted(found)[count - 1]
        before = len(chosen)
        for value, slot in sorted(
            (pair for pair in zip(found, slots, strict=True) if pair[0] <= limit),
            key=lambda pair: pair[0],
        ):
            if value * BETTER >= worth:
                break
            chosen[slot] = None
            need_bytes -= held.length(slot)
            if need_bytes <= 0:
                break
        if len(chosen) == before:
            break
    return list(chosen) if need_bytes <= 0 or newcomer is None else []
