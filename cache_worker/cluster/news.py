"""Which chunks came here, or begin to, in order: what neighbours may fetch ahead. Pure."""

from __future__ import annotations

from collections import deque
from itertools import islice

KEPT = 1 << 14
"""So many are remembered, of one version: who asks less often misses some, which costs it nothing
but the head start."""


class News:
    """Of the version that was read last."""

    def __init__(self, kept: int = KEPT) -> None:
        self._version = ""
        self._chunks: deque[tuple[int, int]] = deque(maxlen=kept)
        self._end = 0
        """How many there were so far, of any version: what askers remember."""

    def add(self, version: str, row: int, chunk: int) -> None:
        """The chunk is here now, or arrives."""
        if version != self._version:
            self._version = version
            self._chunks.clear()
        self._chunks.append((row, chunk))
        self._end += 1

    def since(self, version: str, after: int, most: int) -> tuple[int, list[tuple[int, int]]]:
        """(what to ask with the next time, at most so many (row, chunk)), oldest first.

        `after` may be of another life of this node: then from what is known now.
        """
        if version != self._version:
            return self._end, []
        begin = self._end - len(self._chunks)
        first = after - begin if begin <= after <= self._end else 0
        found = list(islice(self._chunks, first, first + most))
        return begin + first + len(found), found
