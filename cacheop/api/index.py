"""The flat manifest index: one version of a Dataset as columns over a buffer, usually an mmap.

Rows are in breadth-first order: the root's entries, then their entries, and so on, the entries of
one directory side by side and sorted by name as bytes. So a directory is a range of rows, a lookup
is a binary search in that range, a listing touches nothing else, and a subtree is one range per
level. FUSE node id = row + 2; the root has no row (ROOT).

File: HEADER, then META (JSON), then the columns of COLUMNS, each 64-byte aligned, little-endian.
The section table in the header gives (offset, length in bytes) for META and each column in order.
Identical on every node that indexed the same version (what is local to a node is in slots.py).
"""

from __future__ import annotations

import itertools
import json
import struct
from typing import Any, Literal

from cacheop.api.errors import StoreError

MAGIC = b"COPIDX01"
ROOT = -1
NO_ROW = 0xFFFFFFFF
FILE, DIRECTORY = 0, 1
ALIGN_BYTES = 64

Code = Literal["B", "I", "Q", "q"]
# name, memoryview format ("B" columns of more than one byte per row are heaps)
COLUMNS: tuple[tuple[str, Code], ...] = (
    ("kind", "B"),  # u8[rows]     FILE or DIRECTORY
    ("mount", "B"),  # u8[rows]     which of meta["mounts"] a file comes from; 0 for directories
    ("parent", "I"),  # u32[rows]    row of the parent directory, NO_ROW in the root
    ("first", "I"),  # u32[rows]    directory: row of its first entry; file: 0
    ("count", "I"),  # u32[rows]    directory: number of entries; file: 0
    ("size", "Q"),  # u64[rows]    bytes; directory: 0
    ("mtime", "q"),  # i64[rows]    nanoseconds since the epoch; directory: newest of its files
    ("name_at", "Q"),  # u64[rows+1]  name of row r = names[name_at[r]:name_at[r+1]]
    ("names", "B"),
    ("tag_at", "Q"),  # u64[rows+1]  tag of row r = tags[tag_at[r]:tag_at[r+1]]
    ("tags", "B"),  # etag + NUL + the origin's own version id, either may be empty
    ("content", "B"),  # 16 bytes a row: xxh3-128 of (mount URI, key, tag, size), big-endian
)
# magic, header bytes, rows, files, directories, chunks, bytes, root entries
HEADER = struct.Struct("<8sIIIIQQI4x")
SECTION = struct.Struct("<QQ")
HEADER_BYTES = HEADER.size + SECTION.size * (1 + len(COLUMNS))


class Index:
    """Read access to one version. Holds only views of `buffer`; any number of processes share it.

    `meta` has `version` (hex), `mounts` ([{mountPoint, path}], the origin key of a file is its path
    below its mount's `path`), and `skipped` ({reason: {count, examples}}).
    """

    def __init__(self, buffer: memoryview | bytes) -> None:
        view = memoryview(buffer)
        if len(view) < HEADER_BYTES or bytes(view[:8]) != MAGIC:
            raise StoreError("not a manifest index", hint="Index again with `cacheop refresh`")
        (_, _, self.rows, self.files, self.directories, self.chunks, self.bytes, self._top) = (
            HEADER.unpack_from(view)
        )
        sections = [
            SECTION.unpack_from(view, HEADER.size + SECTION.size * i)
            for i in range(1 + len(COLUMNS))
        ]
        if any(offset + length > len(view) for offset, length in sections):
            raise StoreError("manifest index is cut short", hint="Index again: `cacheop refresh`")
        offset, length = sections[0]
        self.meta: dict[str, Any] = json.loads(bytes(view[offset : offset + length]))
        self.version: str = self.meta["version"]
        columns = {
            name: view[offset : offset + length].cast(code)
            for (name, code), (offset, length) in zip(COLUMNS, sections[1:], strict=True)
        }
        self._kind = columns["kind"]
        self._mount = columns["mount"]
        self._parent = columns["parent"]
        self._first = columns["first"]
        self._count = columns["count"]
        self._size = columns["size"]
        self._mtime = columns["mtime"]
        self._name_at = columns["name_at"]
        self._names = columns["names"]
        self._tag_at = columns["tag_at"]
        self._tags = columns["tags"]
        self._content = columns["content"]
        self._view = view

    def is_directory(self, row: int) -> bool:
        """Whether `row` (or ROOT) is a directory."""
        return row == ROOT or self._kind[row] == DIRECTORY

    def size(self, row: int) -> int:
        """Bytes of the file at `row`; 0 for a directory."""
        return self._size[row]

    def mtime_ns(self, row: int) -> int:
        """Modification time in nanoseconds since the epoch."""
        return self._mtime[row]

    def name(self, row: int) -> bytes:
        """Last path component of `row`."""
        at = self._name_at
        return bytes(self._names[at[row] : at[row + 1]])

    def etag(self, row: int) -> str:
        """The origin's etag, opaque; empty if it has none."""
        return self._tag(row).split(b"\0", 1)[0].decode()

    def origin_version(self, row: int) -> str:
        """The origin's own version id of the object; empty if it has none."""
        return self._tag(row).split(b"\0", 1)[-1].decode()

    def content(self, row: int) -> bytes:
        """16 bytes that name the content of the file: mount URI, key, tag and size."""
        return bytes(self._content[16 * row : 16 * row + 16])

    def mount(self, row: int) -> int:
        """Which of meta["mounts"] the file comes from."""
        return self._mount[row]

    def parent(self, row: int) -> int:
        """Row of the parent directory, or ROOT."""
        parent = self._parent[row]
        return ROOT if parent == NO_ROW else parent

    def children(self, row: int) -> range:
        """The rows of the entries of directory `row` (or ROOT), sorted by name."""
        if row == ROOT:
            return range(self._top)
        first = self._first[row]
        return range(first, first + self._count[row])

    def entries(self, rows: range) -> tuple[list[bytes], bytes]:
        """(names, kinds) of consecutive `rows`, such as `children` gives: for listings."""
        at = self._name_at[rows.start : rows.stop + 1].tolist()
        names, base = bytes(self._names[at[0] : at[-1]]), at[0]
        kinds = bytes(self._kind[rows.start : rows.stop])
        return [names[a - base : b - base] for a, b in itertools.pairwise(at)], kinds

    def attributes(self, rows: range) -> tuple[list[int], list[int]]:
        """(sizes, mtimes in nanoseconds) of consecutive `rows`: for listings."""
        sizes, mtimes = self._size, self._mtime
        return sizes[rows.start : rows.stop].tolist(), mtimes[rows.start : rows.stop].tolist()

    def lookup(self, parent: int, name: bytes) -> int | None:
        """The row of `name` in directory `parent` (or ROOT); None if it is not there."""
        rows = self.children(parent)
        low, high = rows.start, rows.stop
        at, names = self._name_at, self._names
        while low < high:
            middle = (low + high) >> 1
            found = bytes(names[at[middle] : at[middle + 1]])
            if found < name:
                low = middle + 1
            elif found == name:
                return middle
            else:
                high = middle
        return None

    def resolve(self, path: str) -> int | None:
        """The row of `path` (slashes at the ends do not matter), ROOT for the root, else None."""
        row = ROOT
        for part in path.encode("utf-8", "surrogateescape").split(b"/"):
            if not part:
                continue
            if not self.is_directory(row):
                return None
            found = self.lookup(row, part)
            if found is None:
                return None
            row = found
        return row

    def path(self, row: int) -> str:
        """The path of `row` in the Dataset, without a leading slash; empty for ROOT."""
        parts: list[bytes] = []
        while row != ROOT:
            parts.append(self.name(row))
            row = self.parent(row)
        return b"/".join(reversed(parts)).decode("utf-8", "surrogateescape")

    def origin_key(self, row: int) -> str:
        """The key of the file below its mount's `mountPoint`."""
        path = self.path(row)
        base = self.meta["mounts"][self._mount[row]]["path"].strip("/")
        return path[len(base) + 1 :] if base else path

    def subtree(self, row: int) -> list[range]:
        """All rows below `row` (files and directories), one range per level; [row] for a file."""
        if not self.is_directory(row):
            return [range(row, row + 1)]
        levels: list[range] = []
        level = self.children(row)
        while len(level):
            levels.append(level)
            kinds = bytes(self._kind[level.start : level.stop])
            first, last = kinds.find(DIRECTORY), kinds.rfind(DIRECTORY)
            if first < 0:
                break
            first, last = level.start + first, level.start + last
            level = range(self._first[first], self._first[last] + self._count[last])
        return levels

    def release(self) -> None:
        """Drop the views, so that the mmap below can be closed."""
        for name in [n for n in self.__dict__ if isinstance(self.__dict__[n], memoryview)]:
            self.__dict__[name].release()

    def _tag(self, row: int) -> bytes:
        at = self._tag_at
        return bytes(self._tags[at[row] : at[row + 1]])
