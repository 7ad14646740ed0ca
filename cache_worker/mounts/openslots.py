"""Which files are open, in memory that outlives the mount process.

One word for each open: the node, and whether the kernel was told to pass through. Its number is the
file handle. A word is written before OPEN is answered and cleared at RELEASE; clearing it twice is
harmless, so a successor may do again what a killed process had done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_PASSED = 1 << 63


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

    def take(self, node: int, *, passed: bool) -> int | None:
        """Note an open; its file handle. None: no more can be open at once."""
        if not self._free:
            return None
        handle = self._free.pop()
        self._words[handle] = node | _PASSED if passed else node
        return handle

    def clear(self, handle: int, node: int) -> bool:
        """Forget the open `handle` of `node`; False: it is not open (any more)."""
        if handle >= len(self._words) or self._words[handle] & ~_PASSED != node:
            return False
        self._words[handle] = 0
        self._free.append(handle)
        return True

    def opened(self) -> Iterator[Opened]:
        """All that is open."""
        for word in self._words.tolist():
            if word:
                yield Opened(word & ~_PASSED, bool(word & _PASSED))
