"""How often each chunk is read: decayed counts, two bytes a chunk. Pure.

A read adds the share of the chunk that it read, so that a Parquet footer is not a read of 8 MiB.
When there were TURN whole reads a chunk on average, all counts are halved: what was read long ago
counts less.
"""

from __future__ import annotations

from array import array
from collections import Counter
from heapq import nlargest
from itertools import repeat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

WHOLE = 64
"""Units that a read of the whole chunk adds; no read adds less than one."""
TURN = 10
MOST = 0xFFFF
FLAT_DISPERSION = 1.5
"""Up to this variance / mean of the counts they may as well be chance: Poisson's is 1."""


class Hotness:
    """The counts of `size` chunks, by index."""

    def __init__(self, size: int) -> None:
        self.counts = array("H", bytes(2 * size))
        """In units of 1 / WHOLE read."""
        self.total = 0
        self._squares = 0
        self._size = size
        self._turn = TURN * WHOLE * max(1, size)

    def add(self, chunks: Sequence[int], units: Sequence[int] | None = None) -> None:
        """Each of `chunks` was read, by default all of it."""
        counts, total, squares = self.counts, self.total, self._squares
        for chunk, more in zip(chunks, units or repeat(WHOLE), strict=False):
            before = counts[chunk]
            after = min(before + more, MOST)
            counts[chunk] = after
            total += more
            squares += after * after - before * before
        self.total, self._squares = total, squares
        if total > self._turn:
            self._halve()

    @property
    def is_flat(self) -> bool:
        """Whether the counts differ no more than by chance: then they tell nothing."""
        if not self._size:
            return True
        mean = self.total / self._size / WHOLE
        variance = self._squares / self._size / WHOLE**2 - mean * mean
        return variance <= FLAT_DISPERSION * mean

    def hottest(self, count: int) -> dict[int, float]:
        """The most read chunks and their reads, the most read first."""
        counts = self.counts
        top = nlargest(count, range(self._size), key=counts.__getitem__)
        return {chunk: counts[chunk] / WHOLE for chunk in top if counts[chunk]}

    def _halve(self) -> None:
        # As one large number: a loop over a million chunks would stop the worker for 50 ms.
        low_fifteen = int.from_bytes(b"\xff\x7f" * self._size, "little")
        halves = (int.from_bytes(self.counts.tobytes(), "little") >> 1) & low_fifteen
        self.counts = array("H", halves.to_bytes(2 * self._size, "little"))
        self.total >>= 1
        self._squares >>= 2


def units(read_bytes: int, chunk_bytes: int) -> int:
    """What reading a part of a chunk adds."""
    return max(1, WHOLE * read_bytes // chunk_bytes) if chunk_bytes else WHOLE


def merged(nodes: Iterable[Mapping[int, float]], count: int) -> dict[int, float]:
    """The hottest of the cluster, from what each node says of its own."""
    total: Counter[int] = Counter()
    for node in nodes:
        for chunk, reads in node.items():
            total[chunk] += reads  # type: ignore[assignment] # a Counter adds floats as well
    return dict(total.most_common(count))
