"""A worker's store as its readers see it: mapped tables and files opened by path, read-only.

The rules are those of docs/architecture.md: open first, then look at the flag; what is incomplete
is proved chunk by chunk with the state byte before and after.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import weakref
from typing import TYPE_CHECKING

from cacheop.api.chunk import chunks_of_span
from cacheop.api.errors import StoreError
from cacheop.api.index import Index
from cacheop.api.table import PRESENT, STATE_MASK, ChunkTable, Slots

if TYPE_CHECKING:
    from pathlib import Path

_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW


class LocalStore:
    """The maps live as long as somebody looks at them.

    Owns a shared lock on the index: as long as somebody holds one, no worker drops the version,
    also one that was started after our last word with its predecessor.
    """

    def __init__(self, root: Path, bound: dict[str, str]) -> None:
        weakref.finalize(self, os.close, _hold(root / bound["index"]))
        self.index = Index(map_file(root / bound["index"]))
        self._slots = Slots(map_file(root / bound["slots"]))
        self._table = ChunkTable(map_file(root / bound["table"]))
        if self._slots.rows != self.index.rows:
            raise StoreError(f"{root / bound['slots']} is not of version {self.index.version}")
        self._data = os.fspath(root / bound["data"]) + "/"

    def is_complete(self, row: int) -> bool:
        """Whether the whole file is in the store."""
        return self._table.is_complete(self._slots.first_slot(row))

    def is_present(self, row: int, chunk: int) -> bool:
        """Whether that chunk of the file is in the store now."""
        return self._table.is_present(self._slots.first_slot(row) + chunk)

    def open_complete(self, row: int, path: str) -> int | None:
        """An fd whose every byte is good and stays so; None if the file is not complete."""
        if self.index.size(row) == 0:
            return os.open(os.devnull, _FLAGS)  # no bytes are always right
        if not self._table.is_complete(self._slots.first_slot(row)):
            return None
        fd = self._open(path)
        if fd is None or self._is_whole(fd, row):
            return fd
        os.close(fd)
        return None

    def read(self, row: int, path: str, offset: int, length: int) -> bytes | None:
        """Those bytes if they are in the store and known good, else None."""
        if length <= 0:
            return b""
        fd = self._open(path)
        if fd is None:
            return None
        try:
            if self._is_whole(fd, row):
                return read_exactly(fd, offset, length)
            return self._read_proved(fd, row, offset, length)
        finally:
            os.close(fd)

    def _open(self, path: str) -> int | None:
        try:
            return os.open(self._data + path, _FLAGS)
        except OSError:  # not there, or no more fds: the worker is the one to say what is wrong
            return None

    def _is_whole(self, fd: int, row: int) -> bool:
        """Whether the open file is complete.

        In this order: a file that still has a name after the flag was seen is the one it tells of.
        """
        if not self._table.is_complete(self._slots.first_slot(row)):
            return False
        found = os.fstat(fd)
        return bool(found.st_nlink) and found.st_size == self.index.size(row)

    def _read_proved(self, fd: int, row: int, offset: int, length: int) -> bytes | None:
        """Those bytes of an incomplete file if all their chunks were present all along."""
        first, state = self._slots.first_slot(row), self._table.state
        chunks = chunks_of_span(self.index.size(row), offset, length)
        slots = range(first + chunks.start, first + chunks.stop)
        before = [state(slot) for slot in slots]
        if any(byte & STATE_MASK != PRESENT for byte in before):
            return None
        data = read_exactly(fd, offset, length)
        if data is None or not os.fstat(fd).st_nlink or [state(slot) for slot in slots] != before:
            return None
        return data


def read_exactly(fd: int, offset: int, length: int) -> bytes | None:
    """`length` bytes at `offset`, or None: a short file is not the right one."""
    data = os.pread(fd, length, offset)
    if len(data) == length or not data:
        return data if len(data) == length else None
    pieces = [data]
    at = len(data)
    while at < length:  # one read gives at most 2 GiB
        data = os.pread(fd, length - at, offset + at)
        if not data:
            return None
        pieces.append(data)
        at += len(data)
    return b"".join(pieces)


def _hold(path: Path) -> int:
    """An fd with a shared lock on a version's index. StoreError: the version is being dropped."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        gone = os.fstat(fd).st_nlink == 0
    except BlockingIOError:
        gone = True
    except OSError:
        gone = False  # a file system without locks: the binding alone must do
    if gone:
        os.close(fd)
        raise StoreError(f"{path} is being deleted", hint="Open a version that is kept")
    return fd


def map_file(path: Path) -> memoryview:
    """A read-only view of a whole file. Raises StoreError if there is none."""
    try:
        with path.open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> StoreError:
    return StoreError(
        f"cannot map {path}: {error}", hint="Clients need read access to the cache directory"
    )
