"""Which slots of the chunk table a version's files have on this node. Pure, vectorised.

A file that a kept version has under the same path with the same content takes that version's slots:
so it takes its bytes. Others get slots that no kept version uses, a file's slots in a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cache_worker.keys import binary, concatenate
from cacheop.api.chunk import CHUNK_BYTES
from cacheop.api.errors import StoreError
from cacheop.api.index import FILE, ROOT
from cacheop.api.table import CAPACITY, NO_SLOT, SLOTS_HEADER, SLOTS_MAGIC

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cache_worker.keys import Ints
    from cacheop.api.index import Index
    from cacheop.api.table import Slots

_UNSET = -1


@dataclass(frozen=True, slots=True)
class Runs:
    """Slots as runs: [first, first + count) each."""

    first: Ints
    count: Ints

    @property
    def end(self) -> int:
        """One past the last slot; 0 if there is none."""
        return int((self.first + self.count).max(initial=0))


def allot(
    new: Index, kept: Sequence[tuple[Index, Slots]], *, capacity: int = CAPACITY
) -> list[memoryview]:
    """The slots file of `new`, in pieces. Raises StoreError when the table is too small.

    `kept` are all versions whose slots must not be given away.
    """
    rows = file_rows(new)
    count = chunk_counts(new, rows)
    first = np.full(len(rows), _UNSET, np.int64)
    if kept:
        paths, content = file_paths(new), _contents(new, rows)
        for index, slots in kept:
            others = file_rows(index)
            _share(first, paths, content, index, others, _first_slots(slots, others))
    gaps = free(join([runs_of(index, slots) for index, slots in kept]), capacity)
    homeless = first == _UNSET
    first[homeless] = place(count[homeless], gaps)
    return _pieces(new.rows, rows, first)


def runs_of(index: Index, slots: Slots) -> Runs:
    """Every file's slots, in the order of the rows."""
    rows = file_rows(index)
    return Runs(_first_slots(slots, rows), chunk_counts(index, rows))


def file_rows(index: Index) -> Ints:
    """The rows that are files."""
    return np.flatnonzero(_column(index._kind, np.uint8) == FILE)


def chunk_counts(index: Index, rows: Ints) -> Ints:
    """How many chunks, so slots, the file at each row has."""
    sizes = _column(index._size, np.uint64)[rows].astype(np.int64)
    return np.maximum(1, -(-sizes // CHUNK_BYTES))


def file_paths(index: Index) -> pa.LargeBinaryArray:
    """The path of every file, in the order of the rows."""
    names = binary(
        _column(index._name_at, np.uint64).astype(np.int64), _column(index._names, np.uint8)
    )
    parent = _column(index._parent, np.uint32)
    kind = _column(index._kind, np.uint8)
    found = []
    above, above_start = pa.array([], names.type), 0
    for level in index.subtree(ROOT):
        paths = names[level.start : level.stop]
        if len(above):
            of = above.take(pa.array(parent[level.start : level.stop] - above_start))
            paths = concatenate((of, paths), b"/")
        found.append(paths.filter(pa.array(kind[level.start : level.stop] == FILE)))
        above, above_start = paths, level.start
    return pa.concat_arrays(found)


def join(runs: Sequence[Runs]) -> Runs:
    """The slots that are in any of `runs`, as runs in ascending order that do not touch."""
    first = np.concatenate([np.zeros(0, np.int64), *(r.first for r in runs)])
    count = np.concatenate([np.zeros(0, np.int64), *(r.count for r in runs)])
    order = np.argsort(first, kind="stable")
    first, end = first[order], np.maximum.accumulate((first + count)[order])
    # A run starts where nothing before it reaches.
    starts = np.ones(len(first), np.bool_)
    starts[1:] = first[1:] > end[:-1]
    begin = np.flatnonzero(starts)
    last = np.append(begin[1:] - 1, [len(first) - 1])[: len(begin)]
    return Runs(first[begin], end[last] - first[begin])


def free(taken: Runs, capacity: int) -> Runs:
    """What `taken`, joined, leaves of a table of `capacity` slots."""
    first = np.concatenate([[0], taken.first + taken.count])
    end = np.append(taken.first, [capacity])
    some = end > first
    return Runs(first[some], (end - first)[some])


def without(runs: Runs, others: Runs) -> Runs:
    """The slots of `runs` that are not among `others`; both joined."""
    limit = max(runs.end, others.end)
    return free(join([free(runs, limit), others]), limit)


def place(count: Ints, gaps: Runs) -> Ints:
    """The first slot for each of files with `count` chunks. Raises StoreError if they do not fit.

    Files of several chunks take the first gaps that hold them, in order; the small ones the rest.
    """
    first = np.full(len(count), _UNSET, np.int64)
    several = np.flatnonzero(count > 1)
    gap_first, gap_left = gaps.first.copy(), gaps.count.copy()
    needed = np.concatenate([[0], np.cumsum(count[several])])
    done = 0
    for gap in np.flatnonzero(gap_left > 1) if len(several) else ():
        fits = int(np.searchsorted(needed, needed[done] + gap_left[gap], side="right")) - 1
        first[several[done:fits]] = gap_first[gap] + needed[done:fits] - needed[done]
        used = needed[fits] - needed[done]
        gap_first[gap] += used
        gap_left[gap] -= used
        done = fits
        if done == len(several):
            break
    one = np.flatnonzero(count == 1)
    if done < len(several) or len(one) > gap_left.sum():
        raise StoreError(
            f"the chunk table is full: {int(count.sum()):,} more chunks do not fit into "
            f"{int(gaps.count.sum()):,} free slots",
            hint="Keep fewer versions (spec.keepVersions) or split the Dataset by prefix",
        )
    # Slot number i of all that is left, gap after gap.
    before = np.concatenate([[0], np.cumsum(gap_left)])
    number = np.arange(len(one))
    gap_of = np.searchsorted(before, number, side="right") - 1
    first[one] = gap_first[gap_of] + number - before[gap_of]
    return first


def _share(
    first: Ints,
    paths: pa.LargeBinaryArray,
    content: np.ndarray[Any, Any],
    index: Index,
    others: Ints,
    slots: Ints,
) -> None:
    """Give files that `index` has as well, same path and content, the slots they have there."""
    there = pc.index_in(paths, value_set=file_paths(index)).fill_null(_UNSET).to_numpy()
    candidates = np.flatnonzero((there >= 0) & (first == _UNSET))
    match = there[candidates]
    same = (content[candidates] == _contents(index, others)[match]).all(axis=1)
    first[candidates[same]] = slots[match[same]]


def _contents(index: Index, rows: Ints) -> np.ndarray[Any, Any]:
    both_halves = _column(index._content, np.uint64).reshape(-1, 2)
    result: np.ndarray[Any, Any] = both_halves[rows]
    return result


def _first_slots(slots: Slots, rows: Ints) -> Ints:
    return _column(slots._first, np.uint32)[rows].astype(np.int64)


def _column(view: memoryview, kind: type[Any]) -> np.ndarray[Any, Any]:
    return np.frombuffer(view, kind)


def _pieces(total_rows: int, rows: Ints, first: Ints) -> list[memoryview]:
    by_row = np.full(total_rows, NO_SLOT, np.uint32)
    by_row[rows] = first
    by_slot = rows[np.argsort(first, kind="stable")].astype(np.uint32)
    header = SLOTS_HEADER.pack(SLOTS_MAGIC, total_rows, len(rows))
    return [memoryview(header), *(memoryview(a.data).cast("B") for a in (by_row, by_slot))]
