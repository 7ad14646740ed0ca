"""The inode that all versions of a content share: made once, linked where it is needed, let go.

One content has one set of slots in the chunk table and so one inode. Everything here runs on the
worker's loop, so nobody is in between; what the flags say of the bytes is the store's business.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cacheop.api.chunk import chunk_count

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cache_worker.disk import Disk
    from cache_worker.versions import Version, Versions


class Inodes:
    """Paths of files in the trees of the open versions."""

    def __init__(self, versions: Versions, disk: Disk) -> None:
        self._versions = versions
        self._disk = disk

    def find(self, version: Version, row: int) -> bool:
        """Whether the file is in this version's tree; links it in if another version has it.

        Raises OSError when there is one that cannot be linked.
        """
        path = version.path(row)
        if os.path.exists(path):
            return True
        source = self._elsewhere(version, row)
        if source is None:
            return False
        self._make_parent(path)
        self._disk.link("STORE:LINK", source, path)
        return True

    def is_at(self, path: str, inode: os.stat_result) -> bool:
        """Whether `path` still names that inode."""
        try:
            return os.path.samestat(os.stat(path), inode)
        except FileNotFoundError:
            return False

    def open_for_fill(self, version: Version, row: int, size: int) -> tuple[int, bool]:
        """(fd for writing, whether the inode is new). Raises OSError; the caller owns the fd."""
        path = version.path(row)
        new = not self.find(version, row)
        flags = os.O_WRONLY | (os.O_CREAT if new else 0)
        try:
            fd = self._disk.open("STORE:FILL", path, flags)
        except FileNotFoundError:
            self._make_parent(path)
            fd, new = self._disk.open("STORE:FILL", path, os.O_WRONLY | os.O_CREAT), True
        try:
            if chunk_count(size) > 1 and os.fstat(fd).st_size != size:
                self._disk.set_size("STORE:SIZE", fd, size)
        except OSError:
            os.close(fd)
            raise
        return fd, new

    def unlink(self, first_slot: int) -> None:
        """Remove the file from every version's tree. Raises OSError."""
        for version in self._versions.all():
            row = version.row_at(first_slot)
            if row is not None:
                self._disk.unlink("STORE:UNLINK", version.path(row))

    def punch(self, version: Version, row: int, spans: list[tuple[int, int]]) -> None:
        """Give the blocks of (offset, length) spans of an incomplete file back. Raises OSError."""
        if not self.find(version, row):
            return
        fd = self._disk.open("STORE:PUNCH", version.path(row), os.O_WRONLY)
        try:
            for offset, length in spans:
                self._disk.punch("STORE:PUNCH", fd, offset, length)
        finally:
            os.close(fd)

    def sharer(self, version: Version, row: int) -> tuple[Version, int] | None:
        """Another open version with the same content at the same path, the current one first."""
        return next(self._sharers(version, row), None)

    def _elsewhere(self, version: Version, row: int) -> str | None:
        """The path of the same content in another version, if it is there."""
        paths = (other.path(other_row) for other, other_row in self._sharers(version, row))
        return next((path for path in paths if os.path.exists(path)), None)

    def _sharers(self, version: Version, row: int) -> Iterator[tuple[Version, int]]:
        slot = version.slots.first_slot(row)
        for other in self._versions.all():
            if other is version:
                continue
            other_row = other.row_at(slot)
            if other_row is not None and other.slots.first_slot(other_row) == slot:
                yield other, other_row

    def _make_parent(self, path: str) -> None:
        self._disk.make_directory("STORE:MKDIR", path.rpartition("/")[0])
