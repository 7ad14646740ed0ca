"""One version in the shared store, read without asking anybody.

The proof that bytes are good (cacheop/api/table.py, docs/architecture.md):
- A file that is complete never changes while its fd is held. The fd is known to be of the complete
  file, and not of one dropped a moment before, when the state byte of its first chunk is the same
  PRESENT before the open and after the flag was seen: a drop would have counted it up.
- Of an incomplete file, state bytes are taken before the open and compared after the read.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from typing import TYPE_CHECKING

from cache_worker.mounts.pages import StorePages
from cache_worker.mounts.paths import Paths
from cacheop.api import names
from cacheop.api.chunk import chunks_of_span
from cacheop.api.errors import StoreError
from cacheop.api.index import Index
from cacheop.api.table import PRESENT, STATE_MASK, ChunkTable, Slots

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MISS = -1  # not (all) here: ask the worker
COLD = -2  # here, but the disk must be waited for
OPEN_FILES_MAX = 512
_NO_PATH = frozenset({errno.ENOENT, errno.ENOTDIR})


class OpenFile:
    """An fd of a complete file. Closed when nobody holds it: a reader in another thread does."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self) -> None:
        os.close(self.fd)


class StoredVersion:
    """The files of `version` below `root` that this node holds. Any thread may read.

    `report` gets a line on faults of the disk that the reader is spared from. Owned for the life
    of the process: a shared lock on the index, so that no worker drops the version.
    """

    def __init__(
        self,
        root: Path,
        version: str,
        report: Callable[[str], None],
        preadv: Callable[..., int] = os.preadv,
    ) -> None:
        self._lock = _hold(root / names.index_path(version))
        self._preadv = preadv
        self._maps = [
            _map(root / path) for path in (names.index_path(version), names.slots_path(version))
        ]
        self.index = Index(memoryview(self._maps[0]))
        self._slots = Slots(memoryview(self._maps[1]))
        self._table = ChunkTable(memoryview(_map(root / names.CHUNK_TABLE)))
        base = os.fsencode(root / names.data_path(version)) + b"/"
        self._path = Paths(self.index, base).path
        self._report = report
        self._reported = ""
        # Complete files, least recently used first. Single dict operations only, so threads agree.
        self._files: dict[int, OpenFile] = {}
        self._pages = StorePages(self._path)
        self._now = os.RWF_NOWAIT

    def read(self, row: int, offset: int, view: memoryview, *, wait: bool) -> int:
        """Bytes [offset, offset+len(view)) of the file at `row` into `view`; how many are there.

        Less than asked only at the end of the file. MISS when this node lacks some; COLD, unless
        `wait`, when only the disk has them. The caller has clipped nothing.
        """
        want = min(len(view), self.index.size(row) - offset)
        if want <= 0:
            return 0
        try:
            held = self._files.pop(row, None) or self._open_complete(row)
            if held is not None:
                self._files[row] = held
                return self._pread(held, offset, view[:want], wait=wait)
            return self._read_proved(row, offset, view[:want], wait=wait)
        except OSError as error:
            if error.errno not in _NO_PATH:  # the worker finds out what is wrong with its disk
                self._note(f"cannot read {self.index.path(row)} in the cache: {error.strerror}")
            return MISS

    def served(self, row: int, offset: int, length: int) -> None:
        """A mount that keeps its pages answered what `read` gave: the store's are not needed now.

        To be called after the answer. A file read at once is closed, too.
        """
        whole = offset == 0 and length >= self.index.size(row)
        held = self._files.pop(row, None) if whole else None
        try:
            self._pages.served(row, held.fd if held is not None else -1, whole=whole)
        except OSError as error:
            self._note(f"cannot drop pages of {self.index.path(row)}: {error.strerror}")

    def is_complete(self, row: int) -> bool:
        """Whether the whole file is on this node."""
        return self._table.is_complete(self._slots.first_slot(row))

    def proof(self, row: int) -> int | None:
        """Proves that the file is complete; None: it is not.

        The same before and after its path was opened means that the complete file was opened.
        """
        first = self._slots.first_slot(row)
        state = self._table.state(first)
        whole = state & STATE_MASK == PRESENT and self._table.is_complete(first)
        return state if whole else None

    def missing(self, row: int, chunks: range) -> list[int]:
        """Which of the file's `chunks` are not on this node: those worth asking for early."""
        first = self._slots.first_slot(row)
        return [chunk for chunk in chunks if not self._table.is_present(first + chunk)]

    def let_go(self) -> None:
        """Give back what is not needed; to be called about once a second.

        Files that were evicted: while their fds are held, the disk keeps their space. And our page
        tables of the index: its pages stay in the page cache, a walk of a million files does not
        stay in our memory.
        """
        for mapped in self._maps:
            mapped.madvise(mmap.MADV_DONTNEED)
        for row in tuple(self._files):
            if not self.is_complete(row):
                self._files.pop(row, None)
        self._pages.tick()

    def cached_percent(self, row: int) -> int:
        """How much of the file's chunks is on this node, 0 to 100, rounded down."""
        size = self.index.size(row)
        first = self._slots.first_slot(row)
        chunks = chunks_of_span(size, 0, size) or range(1)
        return 100 * sum(self._table.is_present(first + c) for c in chunks) // len(chunks)

    def _open_complete(self, row: int) -> OpenFile | None:
        first, table = self._slots.first_slot(row), self._table
        before = table.state(first)
        if before & STATE_MASK != PRESENT or not table.is_complete(first):
            return None
        opened = self._open(row)
        if not table.is_complete(first) or table.state(first) != before:
            return None
        while len(self._files) >= OPEN_FILES_MAX:
            oldest = next(iter(tuple(self._files)), None)
            if oldest is None or self._files.pop(oldest, None) is None:
                break
        return opened

    def _read_proved(self, row: int, offset: int, view: memoryview, *, wait: bool) -> int:
        size, first = self.index.size(row), self._slots.first_slot(row)
        state = self._table.state
        slots = [first + chunk for chunk in chunks_of_span(size, offset, len(view))]
        before = [state(slot) for slot in slots]
        if any(byte & STATE_MASK != PRESENT for byte in before):
            return MISS
        count = self._pread(self._open(row), offset, view, wait=wait)
        return count if [state(slot) for slot in slots] == before else MISS

    def _note(self, fault: str) -> None:
        """Report a fault once, not at every try."""
        if fault != self._reported:
            self._reported = fault
            self._report(fault)

    def _open(self, row: int) -> OpenFile:
        return OpenFile(os.open(self._path(row), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW))

    def _pread(self, file: OpenFile, offset: int, view: memoryview, *, wait: bool) -> int:
        want = len(view)
        if not wait:
            try:
                done = self._preadv(file.fd, [view], offset, self._now)
            except BlockingIOError:
                return COLD
            except OSError as error:
                if error.errno != errno.EOPNOTSUPP:
                    raise
                self._now = 0  # a file system in memory: it never waits
                return COLD
            return done if done == want else COLD
        done = 0
        while done < want:
            count = self._preadv(file.fd, [view[done:]], offset + done)
            if count == 0:
                raise OSError(errno.EIO, "the file is shorter than its version says")
            done += count
        return done


def _hold(path: Path) -> OpenFile:
    """The version's index, open and locked. StoreError: it is not there, or is being dropped."""
    try:
        held = OpenFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        raise StoreError(f"cannot map {path}: {error}") from error
    try:
        fcntl.flock(held.fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise StoreError(f"{path} is being deleted") from error
    except OSError:
        return held  # a file system without locks: the binding alone must do
    return held


def _map(path: Path) -> mmap.mmap:
    """The file as shared memory, read-only. Raises StoreError."""
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise StoreError(f"cannot map {path}: {error}") from error
