"""When a stream that told its order will next use each chunk. Pure.

Eight bytes a chunk for each plan, besides the sixteen of the policy: two epochs ahead.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

NEVER = 0xFFFFFFFF
LOOK_READS = 1000
STRAYED_SHARE = 0.2
NEAR_READS = 4096
"""A read so far from where the plan has it is still in order: loaders read ahead in parallel."""


class Plan:
    """Positions in the order, by chunk index."""

    def __init__(self, size: int) -> None:
        self.due = array("I", [NEVER]) * size
        """The next position at which each chunk is used."""
        self._later = array("I", [NEVER]) * size
        self._end = 0
        self.cursor = 0
        """How much of the order was read."""
        self._strayed = 0
        self._looked_at = 0

    def extend(self, chunks: Iterable[int]) -> None:
        """What is read after all that is known. Of each chunk the next two uses are kept."""
        for chunk in chunks:
            if self.due[chunk] == NEVER:
                self.due[chunk] = self._end
            elif self._later[chunk] == NEVER:
                self._later[chunk] = self._end
            self._end += 1

    def read(self, chunk: int) -> None:
        """The stream read it."""
        due = self.due[chunk]
        if due == NEVER or abs(due - self.cursor) > NEAR_READS:
            self._strayed += 1
        else:
            self.due[chunk], self._later[chunk] = self._later[chunk], NEVER
        self.cursor += 1

    def is_wrong(self) -> bool:
        """Whether the stream reads something else than it said. To be asked after each read."""
        if self.cursor - self._looked_at < LOOK_READS:
            return False
        strayed, self._strayed = self._strayed, 0
        self._looked_at = self.cursor
        return strayed > STRAYED_SHARE * LOOK_READS
