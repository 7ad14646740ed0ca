"""Choosing the least valuable of some at random: no heap over a million chunks. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cache_worker.eviction.policy import Held

CANDIDATES = 64
"""For one victim; enough to be among the lowest 1.5 % (LRB's figure)."""
EACH = 4
"""Candidates for each victim where many go at once: 64 come from 256."""
MOST = 4096
BETTER = 1.0001
"""A newcomer must be worth so much more: equal ones would change places for nothing."""


def lowest(
    held: Held,
    need_bytes: int,
    values: Callable[[Sequence[int], Sequence[int]], list[float]],
    *,
    newcomer: int | None = None,
    worth: float = float("inf"),
) -> list[int]:
    """Chunks of the lowest value for `need_bytes`, all worth less than `worth`: see Policy.victims.

    `values` gives the value per byte of chunks, from their slots and lengths.
    """
    chosen: dict[int, None] = {}
    typical_bytes = need_bytes
    while need_bytes > 0:
        many = EACH * -(-need_bytes // max(1, typical_bytes))
        slots = held.sample(min(MOST, max(CANDIDATES, many)))
        if chosen:
            slots = [slot for slot in slots if slot not in chosen]
        if not slots:
            break
        lengths = held.lengths(slots)
        typical_bytes = sum(lengths) // len(slots)
        found = values(slots, lengths)
        before = len(chosen)
        # Of one sample only the lowest part: the rest is no better than chance.
        for at in sorted(range(len(slots)), key=found.__getitem__)[: max(1, len(slots) // EACH)]:
            if found[at] * BETTER >= worth or need_bytes <= 0:
                break
            chosen[slots[at]] = None
            need_bytes -= lengths[at]
        if len(chosen) == before:
            break
    return list(chosen) if need_bytes <= 0 or newcomer is None else []
