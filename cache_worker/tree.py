"""Sorted file paths -> the breadth-first rows of cacheop/api/index.py. Pure, vectorised.

The files come in tree order (by path, a slash before every other byte), in which a directory's
files and all below it lie side by side. So a directory is placed by the number of the first file
below it, and the order of all rows is an order of integers: (depth, that number).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cache_worker.keys import BINARY, binary, heap, parts_of, split
from cacheop.api.errors import UserError
from cacheop.api.index import DIRECTORY, FILE, NO_ROW

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cache_worker.keys import Ints


@dataclass(frozen=True, slots=True)
class Tree:
    """Columns by row, and where the files went. Directory number 0 is the root, without a row."""

    kind: NDArray[np.uint8]
    parent: NDArray[np.uint32]
    first: NDArray[np.uint32]
    count: NDArray[np.uint32]
    mtime: Ints
    names: pa.LargeBinaryArray
    file_row: Ints  # row of file i
    row_file: Ints  # the file in row r; -1 for a directory
    top: int  # entries of the root

    @property
    def directories(self) -> int:
        """How many rows are directories."""
        return len(self.kind) - len(self.file_row)


@dataclass(frozen=True, slots=True)
class _Directories:
    """All directories of a version, the root first."""

    names: pa.LargeBinaryArray
    parent: Ints
    depth: Ints
    of_file: Ints


def sort_keys(paths: pa.LargeBinaryArray) -> pa.LargeBinaryArray:
    """Bytes that sort as the tree is ordered: as NUL is in no path, it stands for the slash."""
    offsets, data = heap(paths)
    return binary(offsets, np.where(data == ord("/"), np.uint8(0), data))


def tree_order(paths: pa.LargeBinaryArray) -> Ints:
    """The order in which to take `paths`, equal ones in the order given."""
    order: Ints = pc.sort_indices(sort_keys(paths)).to_numpy().astype(np.int64)
    return order


def ascending(after: bytes | None, keys: pa.LargeBinaryArray) -> bool:
    """Whether every one of `keys` is greater than the one before it, the first than `after`."""
    if after is not None and keys[0].as_py() <= after:
        return False
    return len(keys) < 2 or bool(pc.all(pc.less(keys[:-1], keys[1:])).as_py())


def with_ancestors(directories: pa.LargeBinaryArray) -> pa.LargeBinaryArray:
    """The distinct `directories` and every one above them; the root, empty, comes first."""
    known = pa.array([b""], BINARY)
    frontier = pc.unique(directories)
    while True:
        new = frontier.filter(pc.invert(pc.is_in(frontier, value_set=known)))
        if len(new) == 0:
            return known
        known = pa.concat_arrays([known, new])
        frontier = pc.unique(split(parts_of(new))[0])


def build(
    directories: pa.LargeBinaryArray,
    directory_of_file: Ints,
    file_names: pa.ChunkedArray,
    mtimes: Ints,
) -> Tree:
    """The rows for files in tree order. `directories` is as `with_ancestors` gives it."""
    about = _about(directories, directory_of_file)
    files, below_root = len(directory_of_file), len(directories) - 1
    rows = files + below_root
    if rows >= NO_ROW:
        raise UserError(
            f"{rows:,} files and directories are more than one Dataset can hold ({NO_ROW - 1:,})",
            hint="Split the Dataset by prefix",
        )
    first_file, newest = _spans(about, mtimes)
    # Entries are numbered directories first, then files, until `order` makes rows of them.
    owner = np.concatenate([about.parent[1:], about.of_file])
    depth = np.concatenate([about.depth[1:], about.depth[about.of_file] + 1])
    place = np.concatenate([first_file[1:], np.arange(files)])
    order = np.argsort((depth << 40) | place, kind="stable")
    row_of_entry = np.empty(rows, np.int64)
    row_of_entry[order] = np.arange(rows)

    owner = owner[order]
    directory_row = np.concatenate([[NO_ROW], row_of_entry[:below_root]])
    entries = np.bincount(owner, minlength=len(directories))
    first_entry = np.zeros(len(directories), np.int64)
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    first_entry[owner[starts]] = starts
    first, count = np.zeros(rows, np.uint32), np.zeros(rows, np.uint32)
    first[directory_row[1:]], count[directory_row[1:]] = first_entry[1:], entries[1:]
    return Tree(
        kind=np.where(order < below_root, DIRECTORY, FILE).astype(np.uint8),
        parent=directory_row[owner].astype(np.uint32),
        first=first,
        count=count,
        mtime=np.concatenate([newest[1:], mtimes])[order],
        names=pa.concat_arrays([about.names[1:], *file_names.chunks]).take(pa.array(order)),
        file_row=row_of_entry[below_root:],
        row_file=np.where(order < below_root, -1, order - below_root),
        top=int(entries[0]),
    )


def _about(directories: pa.LargeBinaryArray, of_file: Ints) -> _Directories:
    parts = parts_of(directories)
    above, names = split(parts)
    parent = pc.index_in(above, value_set=directories).to_numpy().astype(np.int64)
    depth = parts.depth.copy()
    parent[0], depth[0] = 0, 0
    return _Directories(names, parent, depth, of_file)


def _spans(about: _Directories, mtimes: Ints) -> tuple[Ints, Ints]:
    """For each directory the first file below it, and the newest modification time below it."""
    files = np.arange(len(about.of_file))
    first = np.full(len(about.parent), len(files), np.int64)
    newest = np.full(len(about.parent), np.iinfo(np.int64).min, np.int64)
    np.minimum.at(first, about.of_file, files)
    np.maximum.at(newest, about.of_file, mtimes)
    by_depth = np.argsort(about.depth, kind="stable")
    levels = np.split(by_depth, np.flatnonzero(np.diff(about.depth[by_depth])) + 1)
    for level in reversed(levels[1:]):
        np.minimum.at(first, about.parent[level], first[level])
        np.maximum.at(newest, about.parent[level], newest[level])
    return first, newest
