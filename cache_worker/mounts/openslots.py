"""Which files are open, in memory that outlives the mount process.

One word for each open: the node, whether the kernel was told to pass through, and a tag of the OPEN
that it answers. The word's number and the tag are the file handle. A word is written before OPEN is
answered and cleared at RELEASE, so a successor may do again what a killed process had done:
- An OPEN whose word is there gets that word: whether it was answered or not, it counts once.
- A RELEASE that comes twice finds nothing the second time, as the tag of a later open differs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_PASSED = 1 << 63
_NODE_BITS = 32
_NODE_MASK = (1 << _NODE_BITS) - 1
# The kernel numbers requests in steps of 2, and marks those it sends again in the highest bit.
_TAG_SHIFT = 1
_TAG_MASK = (1 << 31) - 1


class Opened(NamedTuple):
    """One open file."""

    node: int
    passed: bool
    """Read by the kernel from the backing file; else read through us."""


class OpenSlots:
    """Over a part of the ring. Not for several threads at once."""

    def __init__(self, part: memoryview) -> None:
        self._words = part.cast("Q")
        words = self._words.tolist()
        self._free = [n for n in range(len(words) - 1, -1, -1) if not words[n]]
        # Of predecessors. A word found twice is one OPEN that the kernel sent twice.
        self._inherited: dict[int, list[int]] = {}
        for number, word in enumerate(words):
            if word:
                self._inherited.setdefault(word, []).append(number)

    @property
    def has_left(self) -> bool:
        """Whether predecessors left anything open that still is."""
        return bool(self._inherited)

    def inherited(self, node: int, unique: int, *, passed: bool) -> int | None:
        """The file handle that a predecessor gave, or was about to give, to the OPEN `unique`."""
        tagged = (unique >> _TAG_SHIFT & _TAG_MASK) << _NODE_BITS
        numbers = self._inherited.get(tagged | node | _PASSED if passed else tagged | node)
        return tagged | numbers[0] if numbers else None

    def take(self, node: int, unique: int, *, passed: bool) -> int | None:
        """Note the open that OPEN `unique` asks for; its file handle. None: too many are open."""
        if not self._free:
            return None
        number = self._free.pop()
        tagged = (unique >> _TAG_SHIFT & _TAG_MASK) << _NODE_BITS
        self._words[number] = tagged | node | _PASSED if passed else tagged | node
        return tagged | number

    def is_inherited(self, handle: int) -> bool:
        """Whether a predecessor gave `handle`, or was about to."""
        return bool(self._inherited) and self._words[handle & _NODE_MASK] in self._inherited

    def clear(self, handle: int, node: int) -> bool:
        """Forget the open `handle` of `node`; False: it is not open (any more)."""
        number = handle & _NODE_MASK
        if number >= len(self._words):
            return False
        word = self._words[number]
        if not word or word & ~_PASSED != handle - number + node:
            return False
        if self._inherited and (twins := self._inherited.pop(word, None)):
            for twin in twins:
                self._words[twin] = 0
            self._free += twins
        else:
            self._words[number] = 0
            self._free.append(number)
        return True

    def left(self) -> Iterator[Opened]:
        """What predecessors left open."""
        for word in self._inherited:
            yield Opened(word & _NODE_MASK, bool(word & _PASSED))
