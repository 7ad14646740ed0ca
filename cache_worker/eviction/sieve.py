"""SIEVE (Zhang et al., NSDI'24): one queue, one bit a chunk, a hand. Pure.

The hand goes from the oldest to the newest; a chunk that was read since the hand last passed stays
where it is and loses its bit, another goes. Good on hot spots, not safe against scans.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from cache_worker.eviction.policy import Held, Policy

if TYPE_CHECKING:
    from collections.abc import Sequence

GONE = 0xFFFFFFFF
UNKNOWN, KEPT, READ = 0, 1, 2


class Sieve(Policy):
    """About nine bytes a cached chunk."""

    remembers_order = True

    def __init__(self) -> None:
        self._queue = array("I")
        self._hand = 0
        self._state = bytearray()

    def read(self, stream: int, slots: Sequence[int], units: Sequence[int] | None = None) -> None:
        """See Policy."""
        del stream, units
        state, known = self._state, len(self._state)
        for slot in slots:
            if slot < known and state[slot] == KEPT:
                state[slot] = READ

    def kept(self, slot: int) -> None:
        """See Policy."""
        if slot >= len(self._state):
            self._state += bytes(slot + 1024 - len(self._state))
        if self._state[slot] == UNKNOWN:
            self._state[slot] = KEPT
            self._queue.append(slot)

    def dropped(self, slot: int) -> None:
        """See Policy. The hand clears its place when it comes there."""
        if slot < len(self._state) and self._state[slot] != UNKNOWN:
            self._state[slot] = UNKNOWN

    def victims(self, held: Held, need_bytes: int, newcomer: int | None = None) -> list[int]:
        """See Policy. Every newcomer is admitted."""
        chosen: list[int] = []
        steps = 2 * len(self._queue)
        while need_bytes > 0 and steps > 0:
            steps -= 1
            if self._hand >= len(self._queue):
                self._compact()
                if not self._queue:
                    break
            slot = self._queue[self._hand]
            self._hand += 1
            if slot == GONE:
                continue
            if self._state[slot] == UNKNOWN:
                self._forget()
            elif self._state[slot] == READ:
                self._state[slot] = KEPT
            elif held.may_go(slot):
                self._forget()
                chosen.append(slot)
                need_bytes -= held.lengths((slot,))[0]
        return chosen if need_bytes <= 0 or newcomer is None else self._keep(chosen)

    def _forget(self) -> None:
        """The chunk that the hand has just passed is no longer in the queue."""
        self._state[self._queue[self._hand - 1]] = UNKNOWN
        self._queue[self._hand - 1] = GONE

    def _keep(self, chosen: list[int]) -> list[int]:
        """Too few may go for a newcomer: they stay, as if they came just now."""
        for slot in chosen:
            self.kept(slot)
        return []

    def _compact(self) -> None:
        self._queue = array("I", [slot for slot in self._queue if slot != GONE])
        self._hand = 0
