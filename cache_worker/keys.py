"""Keys as an origin gives them -> paths that a file system can hold. Vectorised over a batch.

A batch's paths lie one behind the other in one buffer, each ended by a slash of its own. Then every
part of every path is what lies between two slashes, and all questions are arithmetic on the
positions of the slashes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]
    Ints = NDArray[np.int64]
    Mask = NDArray[np.bool_]

PART_MAX_BYTES = 255  # NAME_MAX of every Linux file system
PATH_MAX_BYTES = 4095  # PATH_MAX less its NUL
EXAMPLES = 5
BINARY = pa.large_binary()  # 64-bit offsets: the paths of a big version exceed 2 GiB
_SLASH, _DOT = ord("/"), ord(".")

MARKER = "directory marker with content"
EMPTY = "empty part in the key"
DOTS = "'.' or '..' in the key"
NUL = "NUL in the key"
LONG_PART = f"part longer than {PART_MAX_BYTES} bytes"
LONG_PATH = f"path longer than {PATH_MAX_BYTES} bytes"
NO_SIZE = "no size in the listing"
NOT_UTF8 = "key is not UTF-8"
FILE_AND_DIRECTORY = "both a file and a directory"
TWICE = "listed twice"


@dataclass(slots=True)
class Skipped:
    """What was left out: for each reason how many keys, and the first few by name."""

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def note(self, reason: str, count: int, names: Iterable[bytes]) -> None:
        """`count` more keys fall under `reason`; the first few of `names` are kept."""
        if not count:
            return
        self.counts[reason] = self.counts.get(reason, 0) + count
        kept = self.examples.setdefault(reason, [])
        for name in names:
            if len(kept) >= EXAMPLES:
                return
            kept.append(name.decode("utf-8", "backslashreplace"))

    def note_where(
        self, reason: str, mask: Mask, keys: pa.LargeBinaryArray | pa.ChunkedArray
    ) -> None:
        """The `keys` where `mask` is set fall under `reason`."""
        rows = np.flatnonzero(mask)
        if len(rows):
            self.note(reason, len(rows), keys.take(pa.array(rows[:EXAMPLES])).to_pylist())

    def document(self) -> dict[str, dict[str, Any]]:
        """As in the index's meta and in the index child's last line."""
        return {
            reason: {"count": count, "examples": self.examples[reason]}
            for reason, count in sorted(self.counts.items())
        }


def heap(array: pa.LargeBinaryArray) -> tuple[Ints, Bytes]:
    """(offsets, bytes) of a binary array, the first offset 0; views where possible."""
    _, offset_buffer, data_buffer = array.buffers()
    if len(array) == 0 or data_buffer is None:
        return np.zeros(len(array) + 1, np.int64), np.zeros(0, np.uint8)
    offsets = np.frombuffer(offset_buffer, np.int64)[array.offset : array.offset + len(array) + 1]
    data = np.frombuffer(data_buffer, np.uint8)[offsets[0] : offsets[-1]]
    return (offsets - offsets[0] if offsets[0] else offsets), data


def binary(offsets: Ints, data: Bytes) -> pa.LargeBinaryArray:
    """The binary array of that heap; copies nothing."""
    return pa.LargeBinaryArray.from_buffers(
        BINARY, len(offsets) - 1, [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    )


def in_order(array: pa.LargeBinaryArray, order: Ints) -> pa.LargeBinaryArray:
    """All of `array`, in that order."""
    if bool((order == np.arange(len(order))).all()):
        return array
    return array.take(pa.array(order))


def concatenate(pieces: tuple[pa.Array | bytes, ...], separator: bytes = b"") -> pa.Array:
    """Row by row, the pieces joined by `separator`; bytes stand for the same in every row."""
    return pc.binary_join_element_wise(
        *(pa.scalar(p, BINARY) if isinstance(p, bytes) else p for p in pieces),
        pa.scalar(separator, BINARY),
    )


@dataclass(frozen=True, slots=True)
class Parts:
    """Where the parts of a batch of paths are. `starts` and `ends` delimit a row's path."""

    data: Bytes
    starts: Ints
    ends: Ints  # position of the row's own ending slash
    slash: Ints  # positions of all slashes
    length: Ints  # bytes of the part before each slash
    last: Ints  # for each row, which slash is its ending one

    @property
    def depth(self) -> Ints:
        """How many parts each path has."""
        return np.diff(self.last, prepend=-1)

    def rows_with(self, part: Mask) -> Mask:
        """The rows that have a part for which `part` is set."""
        mask = np.zeros(len(self.ends), np.bool_)
        mask[np.searchsorted(self.last, np.flatnonzero(part))] = True
        return mask


def parts_of(paths: pa.LargeBinaryArray) -> Parts:
    """Cut every path at its slashes."""
    offsets, data = heap(concatenate((paths, b"/")))
    ends = offsets[1:] - 1
    slash = np.flatnonzero(data == _SLASH)
    length = np.diff(slash, prepend=-1) - 1
    return Parts(data, offsets[:-1], ends, slash, length, np.searchsorted(slash, ends))


def split(parts: Parts) -> tuple[pa.LargeBinaryArray, pa.LargeBinaryArray]:
    """(directory, name) of every path; the directory of a path of one part is empty."""
    name_bytes = parts.length[parts.last]
    below_root = parts.depth > 1
    directory_bytes = np.where(below_root, parts.ends - parts.starts - name_bytes - 1, 0)
    # Each row is directory, slash, name, slash: tell every byte which of them it belongs to.
    runs = np.empty((len(name_bytes), 4), np.int64)
    runs[:, 0], runs[:, 1], runs[:, 2], runs[:, 3] = directory_bytes, below_root, name_bytes, 1
    belongs = np.repeat(np.tile(np.array([1, 0, 2, 0], np.uint8), len(runs)), runs.ravel())
    return (
        binary(_offsets(directory_bytes), parts.data[belongs == 1]),
        binary(_offsets(name_bytes), parts.data[belongs == 2]),
    )


def odd(parts: Parts) -> dict[str, Mask]:
    """For each reason, the rows that no file system can hold; MARKER are the keys that end in '/'.

    A row is under one reason only, the first that fits.
    """
    # Directory markers of S3 consoles ("images/") stand for no file and are nobody's mistake.
    marker = parts.length[parts.last] == 0
    inner_empty = parts.length == 0
    inner_empty[parts.last] = False
    found = {
        MARKER: marker,
        EMPTY: parts.rows_with(inner_empty),
        DOTS: parts.rows_with(_dots(parts)),
        NUL: _rows_with_nul(parts),
        LONG_PART: parts.rows_with(parts.length > PART_MAX_BYTES),
        LONG_PATH: parts.ends - parts.starts > PATH_MAX_BYTES,
    }
    taken = np.zeros(len(parts.ends), np.bool_)
    for reason, mask in found.items():
        found[reason] = mask & ~taken
        taken |= mask
    return found


def _dots(parts: Parts) -> Mask:
    short = np.flatnonzero((parts.length == 1) | (parts.length == 2))
    before = parts.slash[short]
    dots = (parts.data[before - 1] == _DOT) & (
        (parts.length[short] == 1) | (parts.data[before - 2] == _DOT)
    )
    mask = np.zeros(len(parts.slash), np.bool_)
    mask[short[dots]] = True
    return mask


def _rows_with_nul(parts: Parts) -> Mask:
    mask = np.zeros(len(parts.ends), np.bool_)
    mask[np.searchsorted(parts.ends, np.flatnonzero(parts.data == 0))] = True
    return mask


def _offsets(lengths: Ints) -> Ints:
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets
