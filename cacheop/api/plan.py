"""What a training job will read, in order, packed for the operation `plan`.

A read is a row of the version's index: the whole file; or a row and a range of its chunks. NO_ROW
keeps the place of something that the Dataset does not have.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

from cacheop.api.errors import ProtocolError

SEGMENT_READS = 8192
"""So many are told at once: a worker takes them in about 10 ms."""
ROWS, SPANS = "rows", "spans"
SPAN_NUMBERS = 3
PAYLOAD_MAX_BYTES = SEGMENT_READS * SPAN_NUMBERS * 4


@dataclass(slots=True)
class Reads:
    """Reads in order: rows and, where not all are of whole files, (first chunk, chunks) of each."""

    rows: array[int] = field(default_factory=lambda: array("I"))
    chunks: array[int] | None = None
    """Two numbers a read; a count of 0 is the whole file."""

    def __len__(self) -> int:
        return len(self.rows)

    def at(self, number: int) -> tuple[int, int, int]:
        """(row, first chunk, chunks) of one read; no chunks = all."""
        if self.chunks is None:
            return self.rows[number], 0, 0
        return self.rows[number], self.chunks[2 * number], self.chunks[2 * number + 1]

    def extend(self, more: Reads) -> None:
        """`more` are read after these."""
        if more.chunks is not None or self.chunks is not None:
            self.chunks = self._chunks() + more._chunks()
        self.rows.extend(more.rows)

    def _chunks(self) -> array[int]:
        return self.chunks if self.chunks is not None else array("I", [0]) * (2 * len(self.rows))

    def pack(self, start: int, stop: int) -> tuple[str, bytes]:
        """(kind, payload) of the reads [start, stop)."""
        rows = self.rows[start:stop]
        if self.chunks is None:
            return ROWS, rows.tobytes()
        return SPANS, rows.tobytes() + self.chunks[2 * start : 2 * stop].tobytes()


def unpack(kind: str, payload: bytes | memoryview) -> Reads:
    """What `pack` made. Raises ProtocolError."""
    each = {ROWS: 4, SPANS: 4 * SPAN_NUMBERS}.get(kind)
    if each is None or len(payload) % each or len(payload) > SEGMENT_READS * each:
        raise ProtocolError(f"a plan's {kind!r} of {len(payload)} bytes make no sense")
    numbers = array("I")
    numbers.frombytes(bytes(payload))
    if kind == ROWS:
        return Reads(numbers)
    count = len(numbers) // SPAN_NUMBERS
    return Reads(numbers[:count], numbers[count:])
