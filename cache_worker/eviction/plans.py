"""When a stream that told its order will next use each chunk. Pure.

Eight bytes a chunk for each plan, besides the sixteen of the policy: two epochs ahead.
"""

from __future__ import annotations

from array import array
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

NEVER = 0xFFFFFFFF
LOOK_READS = 1000
STRAYED_SHARE = 0.2
NEAR_READS = 4096
"""A read so far from where the plan has it is still in order: loaders read ahead in parallel."""


class Plan:
    """Positions in the order, by chunk index.

    Several ranks of a job read at the same time: each has an order of its own, with its own
    positions, and where one is the others are.
    """

    def __init__(self, size: int) -> None:
        self.due = array("I", [NEVER]) * size
        """The next position at which each chunk is used."""
        self._later = array("I", [NEVER]) * size
        self._end = 0
        self.ranks = 1
        self.cursor = 0
        """How much of the order was read."""
        self._reads = 0  # since the cursor moved
        self._strayed = 0
        self._heard = 0

    def extend(self, chunks: Iterable[int], at: Iterable[int] | None = None) -> None:
        """What is read at these positions, by default after all that is known.

        Of each chunk the next two uses are kept.
        """
        due, later = self.due, self._later
        position = self._end - 1
        for chunk, position in zip(chunks, at or count(self._end), strict=False):
            first = due[chunk]
            if position < first:
                if first != NEVER:
                    later[chunk] = first
                due[chunk] = position
            elif first < position < later[chunk]:
                later[chunk] = position
        self._end = max(self._end, position + 1)

    def reached(self, position: int) -> None:
        """The stream is as far as that; what it did not read before, it will not."""
        if position > self.cursor:
            self.cursor, self._reads = position, 0

    def reads_until(self, chunk: int) -> int:
        """How many reads of the stream come before it uses the chunk; NEVER if it is not known."""
        due = self.due[chunk]
        if due + NEAR_READS < self.cursor:  # it was left out
            due = self.due[chunk] = self._later[chunk]
            self._later[chunk] = NEVER
        return due if due == NEVER else max(1, (due - self.cursor) * self.ranks)

    def read(self, chunk: int) -> None:
        """The stream read it."""
        due = self.due[chunk]
        if due == NEVER or abs(due - self.cursor) > NEAR_READS:
            self._strayed += 1
        else:
            self.due[chunk], self._later[chunk] = self._later[chunk], NEVER
        self._heard += 1
        self._reads += 1
        if self._reads >= self.ranks:
            self.cursor, self._reads = self.cursor + 1, 0

    def is_wrong(self) -> bool:
        """Whether the stream reads something else than it said. To be asked after each read."""
        if self._heard < LOOK_READS:
            return False
        strayed = self._strayed
        self._strayed = self._heard = 0
        return strayed > STRAYED_SHARE * LOOK_READS
