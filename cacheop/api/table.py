"""The chunk table: which chunks a node holds, as columns over a buffer, usually an mmap.

One sparse file `chunks` for all versions of a Dataset. A file owns `chunk_count(size)` slots in a
row; the state of the whole file lives at its first slot. Slots are given to *content* (path, mount,
key, tag, size), so versions that share a file share its slots. Which slot a row has is in the
version's Slots.

One writer, the worker. Readers in any process: open the file by its path, then look here.
- `is_complete(first_slot)`: every byte is there and never changes while you hold the fd.
- else, chunk by chunk: take `state(slot)` before the read and compare it after; the same byte with
  PRESENT in it means that the bytes in between were good (the upper bits count how often the chunk
  was dropped, so a chunk dropped and filled again shows).
"""

from __future__ import annotations

import struct
from typing import Final, Literal

from cacheop.api.errors import StoreError

MAGIC = b"COPTAB01"
CAPACITY = 1 << 26  # slots; the file is sparse, only slots in use take space
HEADER_BYTES = 4096
HEADER = struct.Struct("<8sQ")  # magic, capacity; the writer keeps its own fields behind them

ABSENT, FILLING, PRESENT, SUSPECT = 0, 1, 2, 3  # SUSPECT: to be verified before its first use
STATE_MASK: Final = 3
GENERATION: Final = 4

INCOMPLETE, COMPLETE = 0, 1

Code = Literal["B", "I", "Q"]
# name, memoryview format, in file order
COLUMNS: tuple[tuple[str, Code], ...] = (
    ("state", "B"),  # low 2 bits: one of the four above; upper 6: how often it was dropped
    ("file", "B"),  # at a file's first slot: INCOMPLETE or COMPLETE
    ("checksum", "Q"),  # xxh3-64 of the chunk's bytes, recorded as they came from the origin
    ("length", "I"),  # bytes of the chunk
    ("accessed", "I"),  # at a file's first slot: seconds since the epoch of the last known use
    ("reads", "I"),  # at a file's first slot: how often it was read, as far as known
)
WIDTH = {"B": 1, "I": 4, "Q": 8}
FILE_BYTES = HEADER_BYTES + CAPACITY * sum(WIDTH[code] for _, code in COLUMNS)


def columns(buffer: memoryview) -> dict[str, memoryview]:
    """The columns of a table by name. Raises StoreError if `buffer` is not one."""
    if len(buffer) < FILE_BYTES or HEADER.unpack_from(buffer) != (MAGIC, CAPACITY):
        raise StoreError("not a chunk table of this cacheop version")
    result: dict[str, memoryview] = {}
    offset = HEADER_BYTES
    for name, code in COLUMNS:
        length = CAPACITY * WIDTH[code]
        result[name] = buffer[offset : offset + length].cast(code)
        offset += length
    return result


class ChunkTable:
    """Read access to the table of one Dataset on one node."""

    def __init__(self, buffer: memoryview | bytes) -> None:
        found = columns(memoryview(buffer))
        self._state, self._file = found["state"], found["file"]

    def is_complete(self, first_slot: int) -> bool:
        """Whether every chunk of the file is present and verified."""
        return self._file[first_slot] == COMPLETE

    def state(self, slot: int) -> int:
        """The state byte of a chunk: `state & STATE_MASK` is what it is now."""
        return self._state[slot]

    def is_present(self, slot: int) -> bool:
        """Whether the chunk is present and verified now."""
        return self._state[slot] & STATE_MASK == PRESENT


SLOTS_MAGIC = b"COPSLT01"
SLOTS_HEADER = struct.Struct("<8sII")  # magic, rows, files
NO_SLOT = 0xFFFFFFFF


class Slots:
    """Where one version's files live in this node's table: `<version>.slots` beside the index.

    Layout: SLOTS_HEADER, u32 first slot of each row (NO_SLOT for directories), then the rows of all
    files sorted by their first slot (u32), for the way back.
    """

    def __init__(self, buffer: memoryview | bytes) -> None:
        view = memoryview(buffer)
        if len(view) < SLOTS_HEADER.size:
            raise StoreError("slots file is cut short", hint="Index again with `cacheop refresh`")
        magic, self.rows, self.files = SLOTS_HEADER.unpack_from(view)
        at = SLOTS_HEADER.size
        if magic != SLOTS_MAGIC or len(view) < at + 4 * (self.rows + self.files):
            raise StoreError("not a slots file", hint="Index again with `cacheop refresh`")
        self._first = view[at : at + 4 * self.rows].cast("I")
        at += 4 * self.rows
        self._by_slot = view[at : at + 4 * self.files].cast("I")

    def first_slot(self, row: int) -> int:
        """The first slot of the file at `row`."""
        return self._first[row]

    def rows_by_slot(self) -> memoryview:
        """The rows of all files in the order of their first slots."""
        return self._by_slot

    def row_of_slot(self, slot: int) -> int | None:
        """The file whose first slot is the last one at or before `slot`; None before the first.

        The caller checks with the file's chunk count that `slot` is really among that file's.
        """
        low, high = 0, self.files
        first, by_slot = self._first, self._by_slot
        while low < high:
            middle = (low + high) >> 1
            if first[by_slot[middle]] <= slot:
                low = middle + 1
            else:
                high = middle
        return by_slot[low - 1] if low else None
