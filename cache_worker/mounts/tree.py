"""A version's index as inodes: node id = row + 2, the root is 1. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache_worker.mounts import kernel
from cache_worker.mounts.kernel import Attributes
from cache_worker.mounts.listing import entries
from cacheop.api.index import ROOT

if TYPE_CHECKING:
    from cacheop.api.index import Index

ROOT_NODE = 1
_DOTS = 2  # "." and ".." come before the children


def row_of(node: int) -> int:
    """The row (or ROOT) of a node id."""
    return ROOT if node == ROOT_NODE else node - 2


def node_of(row: int) -> int:
    """The node id of a row (or ROOT)."""
    return ROOT_NODE if row == ROOT else row + 2


class Tree:
    """What the kernel may ask about names and attributes."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._root_mtime_ns = max((index.mtime_ns(row) for row in index.children(ROOT)), default=0)

    def attributes(self, row: int) -> Attributes:
        """What stat shows of `row` (or ROOT)."""
        if row == ROOT:
            return Attributes(ROOT_NODE, True, 0, self._root_mtime_ns)
        index = self._index
        return Attributes(row + 2, index.is_directory(row), index.size(row), index.mtime_ns(row))

    def lookup(self, parent: int, name: bytes) -> bytes:
        """Body of the answer to LOOKUP of `name` in directory `parent`."""
        row = self._index.lookup(parent, name)
        return kernel.NO_ENTRY if row is None else kernel.entry(self.attributes(row))

    def listing(self, row: int, offset: int, limit_bytes: int, *, plus: bool) -> bytes:
        """Entries of directory `row` from number `offset` on, as many as fit `limit_bytes`.

        Numbers 0 and 1 are "." and "..", then come the children: no state between the calls.
        """
        children = self._index.children(row)
        parts: list[bytes] = []
        left_bytes = limit_bytes
        for number in range(offset, _DOTS):
            at = row if number == 0 or row == ROOT else self._index.parent(row)
            name = b"." if number == 0 else b".."
            part = kernel.directory_entry(self.attributes(at), name, number + 1, plus=plus)
            left_bytes -= len(part)
            if left_bytes < 0:
                return b"".join(parts)
            parts.append(part)
        number = max(offset, _DOTS)
        rows = children[number - _DOTS :]
        parts.append(entries(self._index, rows, number + 1, left_bytes, plus=plus))
        return b"".join(parts)

    def statfs(self) -> bytes:
        """Body of the answer to STATFS."""
        return kernel.statfs(self._index.bytes, self._index.rows + 1)
