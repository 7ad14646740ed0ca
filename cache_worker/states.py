"""Chunk states and the only legal steps between them. Pure.

      reserve            write + checksum
ABSENT ------> FILLING ------------------> PRESENT --drop--> ABSENT (generation + 1)
   ^              |                           |
   |    abandon   |                           | unclean stop (distrust)
   +--------------+                           v
   +------------- drop ------------------- SUSPECT --verify--> PRESENT

The upper six bits of a state byte count how often the chunk was dropped, modulo 64: a reader that
sees the same PRESENT byte before and after its read knows that nothing was dropped in between.
"""

from __future__ import annotations

from cacheop.api.table import ABSENT, FILLING, GENERATION, PRESENT, STATE_MASK, SUSPECT

# (state, step) -> (next state, does the generation move on?)
STEPS: dict[tuple[int, str], tuple[int, bool]] = {
    (ABSENT, "reserve"): (FILLING, False),
    (FILLING, "write"): (PRESENT, False),
    (FILLING, "abandon"): (ABSENT, False),
    (PRESENT, "drop"): (ABSENT, True),
    (PRESENT, "distrust"): (SUSPECT, False),
    (SUSPECT, "verify"): (PRESENT, False),
    (SUSPECT, "drop"): (ABSENT, True),
}


def step(state_byte: int, name: str) -> int:
    """The state byte after `name`. ValueError if that step is not legal from here."""
    found = STEPS.get((state_byte & STATE_MASK, name))
    if found is None:
        raise ValueError(f"illegal step {name!r} of a chunk in state {state_byte & STATE_MASK}")
    state, moves_on = found
    generation = state_byte & ~STATE_MASK
    if moves_on:
        generation = (generation + GENERATION) & 0xFF
    return generation | state


def _unclean(state_byte: int) -> int:
    state = state_byte & STATE_MASK
    if state == PRESENT:
        return step(state_byte, "distrust")
    # What a dead worker was filling may have reached the file in part: as if dropped.
    return (state_byte & ~STATE_MASK) | ABSENT if state == FILLING else state_byte


# bytes.translate tables, so that a million chunks take milliseconds
AFTER_UNCLEAN_STOP = bytes(_unclean(b) for b in range(256))
AFTER_FORGET = bytes(
    step(b, "drop") if b & STATE_MASK in (PRESENT, SUSPECT) else b for b in range(256)
)
HOLDS_BYTES = bytes(int(b & STATE_MASK in (PRESENT, SUSPECT)) for b in range(256))
STATE_ONLY = bytes(b & STATE_MASK for b in range(256))
