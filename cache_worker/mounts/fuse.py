"""Answers the kernel from the shared store: what all FUSE modes have in common.

Threads: `serve` runs on the process's main thread and is the only one that receives. Reads that
must wait for the disk go to a few threads of our own, reads that miss to the worker's line; each
answers with a single write, which the kernel takes from any thread. More Python threads on one fd
are slower than one (they share one interpreter lock); more processes, each with its lane, are the
way to scale.
"""

from __future__ import annotations

import errno
import os
import struct
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING

from cache_worker.mounts import kernel
from cache_worker.mounts.line import Read
from cache_worker.mounts.stored import COLD, MISS
from cache_worker.mounts.tree import ROOT_NODE
from cacheop.api.chunk import CHUNK_BYTES
from cacheop.api.index import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

    from cache_worker.mounts.channel import Channel, Request
    from cache_worker.mounts.line import Line
    from cache_worker.mounts.opens import Opens
    from cache_worker.mounts.readahead import Streams
    from cache_worker.mounts.stored import StoredVersion
    from cache_worker.mounts.tree import Tree

TRIES_MAX = 16  # a worker that never sends the bytes in its answer is asked this often
DISK_THREADS = 8
SKIPPED_BYTES = 48
XATTR_CACHED = b"user.cacheop.cached"  # percent of the file on this node
XATTR_ETAG = b"user.cacheop.etag"
XATTR_VERSION = b"user.cacheop.version"

_KEEP_DIRECTORY = kernel.OPEN_OUT.pack(0, kernel.FOPEN_KEEP_CACHE | kernel.FOPEN_CACHE_DIR, 0)
_MALFORMED = (struct.error, IndexError, ValueError, OverflowError)
_OF_NO_NODE = frozenset({kernel.INIT, kernel.INTERRUPT, kernel.DESTROY, kernel.STATFS})
_OF_FILES = frozenset({kernel.OPEN, kernel.READ, kernel.LSEEK})
_OF_DIRECTORIES = frozenset({kernel.LOOKUP, kernel.OPENDIR, kernel.READDIR, kernel.READDIRPLUS})


class FuseMount:
    """One mount of one version, in any of the modes that ask us."""

    def __init__(
        self,
        channel: Channel,
        tree: Tree,
        stored: StoredVersion,
        line: Line,
        opens: Opens,
        init: Callable[[Request, int], None],
    ) -> None:
        self._channel = channel
        self._tree = tree
        self._stored = stored
        self._rows = stored.index.rows
        self._is_directory = stored.index.is_directory
        self._line = line
        self._opens = opens
        self._silent = bool(opens.wanted & kernel.NO_OPEN_SUPPORT)
        """Whether the kernel opens files and directories without asking."""
        self._keeps = opens.keeps
        self._view = _buffer(kernel.READ_MAX_BYTES)  # main thread's
        self._line_view = _buffer(kernel.READ_MAX_BYTES)  # the line's thread's
        self._streams: Streams | None = None  # main thread's
        self._cold: SimpleQueue[Read] = SimpleQueue()
        self._disk_threads = 0
        self._answers: dict[int, Callable[[Request, int], None]] = {
            kernel.LOOKUP: self._lookup,
            kernel.GETATTR: self._getattr,
            kernel.OPEN: self._open,
            kernel.READ: self._read,
            kernel.RELEASE: opens.release,
            kernel.RELEASEDIR: self._done,
            kernel.OPENDIR: self._opendir,
            kernel.READDIR: self._readdir,
            kernel.READDIRPLUS: self._readdirplus,
            kernel.STATFS: self._statfs,
            kernel.GETXATTR: self._getxattr,
            kernel.LISTXATTR: self._listxattr,
            kernel.LSEEK: self._lseek,
            kernel.INTERRUPT: self._interrupt,
            kernel.INIT: init,
            kernel.DESTROY: self._done,
        }

    def serve(self) -> None:
        """Answer until the mount ends."""
        receive, dispatch = self._channel.receive, self.dispatch
        while (request := receive()) is not None:
            dispatch(request)

    def dispatch(self, request: Request) -> None:
        """Answer one request, or see to it that it is answered. Whatever it says, we live."""
        op, row = request.op, request.node - 2
        answer = self._answers.get(op)
        if answer is None:
            if op not in kernel.NO_ANSWER:
                code = errno.EROFS if op in kernel.WRITES else errno.ENOSYS
                self._channel.fail(request, code)
            return
        if not 0 <= row < self._rows:
            if request.node != ROOT_NODE and op not in _OF_NO_NODE:
                self._channel.fail(request, errno.ESTALE)
                return
            row = ROOT
        try:
            if op in _OF_FILES and (row == ROOT or self._is_directory(row)):
                self._channel.fail(request, errno.EISDIR)
            elif op in _OF_DIRECTORIES and row != ROOT and not self._is_directory(row):
                self._channel.fail(request, errno.ENOTDIR)
            else:
                answer(request, row)
        except _MALFORMED:
            if op != kernel.INTERRUPT:
                self._channel.fail(request, errno.EIO)

    def _open(self, request: Request, row: int) -> None:
        if kernel.SIZE_IN.unpack_from(request.body)[0] & os.O_ACCMODE:
            self._channel.fail(request, errno.EROFS)
            return
        self._opens.open(request, row)
        self._line.touch(row)

    def _lookup(self, request: Request, row: int) -> None:
        self._channel.answer(request, self._tree.lookup(row, _name(request.body)))

    def _getattr(self, request: Request, row: int) -> None:
        self._channel.answer(request, kernel.attributes_answer(self._tree.attributes(row)))

    # -- reading ----------------------------------------------------------------------------------

    def _read(self, request: Request, row: int) -> None:
        _, offset, length = kernel.READ_IN.unpack_from(request.body)
        view = self._view
        if length > len(view):
            raise ValueError("more than was agreed on")
        count = self._stored.read(row, offset, view[:length], wait=False)
        if count >= 0:
            self._channel.answer(request, view[:count])
            if count and self._keeps:
                self._stored.served(row, offset, count)
        else:
            read = Read(self._channel.park(request), row, offset, length, self._answered)
            if count == COLD:
                self._later(read)
            else:
                self._line.ask(read)
        if self._stored.index.size(row) > CHUNK_BYTES:
            self._look_ahead(row, offset, length)

    def _answered(self, read: Read, payload: bytes | None, errno_code: int) -> None:
        """The worker's answer to a read that missed. On the line's thread."""
        if errno_code:
            # EAGAIN from a file means "nothing yet" to readers: Python's read() returns None on it.
            code = errno.EBUSY if errno_code == errno.EAGAIN else errno_code
            self._channel.fail(read.request, code)
        elif payload is None:
            self._attempt(read, self._line_view[: read.length], wait=False)
        else:
            want = min(read.length, self._stored.index.size(read.row) - read.offset)
            if len(payload) == want:
                self._channel.answer(read.request, payload)
            else:  # never short data
                self._channel.fail(read.request, errno.EIO)

    def _look_ahead(self, row: int, offset: int, length: int) -> None:
        """Ask for what a reader of a big file soon wants, also while it finds all it reads."""
        stored = self._stored
        if stored.is_complete(row):
            return
        if self._streams is None:
            from cache_worker.mounts.readahead import Streams  # not before the first requests

            self._streams = Streams()
        chunks = self._streams.read(row, stored.index.size(row), offset, length)
        for chunk in stored.missing(row, chunks):
            self._line.hint(row, chunk * CHUNK_BYTES)

    def _attempt(self, read: Read, view: memoryview, *, wait: bool) -> None:
        """Read now; what is not there (any more) is asked for again. On any thread."""
        count = self._stored.read(read.row, read.offset, view, wait=wait)
        if count >= 0:
            self._channel.answer(read.request, view[:count])
            if count and self._keeps:
                self._stored.served(read.row, read.offset, count)
        elif count == COLD:
            self._later(read)
        elif count == MISS and read.tries < TRIES_MAX:
            read.tries += 1
            self._channel.hurry(read.request, hurried=False)
            self._line.ask(read)
        else:
            self._channel.fail(read.request, errno.EIO)

    def _later(self, read: Read) -> None:
        self._channel.hurry(read.request, hurried=True)
        self._cold.put(read)
        if self._disk_threads < DISK_THREADS and self._cold.qsize() > 0:
            self._disk_threads += 1
            # A daemon: it owns nothing but the buffer of the read in its hands.
            threading.Thread(target=self._read_cold, name="disk", daemon=True).start()

    def _read_cold(self) -> None:
        while True:
            read = self._cold.get()
            self._attempt(read, _buffer(read.length), wait=True)

    # -- directories and attributes ---------------------------------------------------------------

    def _opendir(self, request: Request, _row: int) -> None:
        if self._silent:
            self._channel.fail(request, errno.ENOSYS)
        else:
            self._channel.answer(request, _KEEP_DIRECTORY)

    def _readdir(self, request: Request, row: int) -> None:
        _, offset, limit_bytes = kernel.READ_IN.unpack_from(request.body)
        self._channel.answer(request, self._tree.listing(row, offset, limit_bytes, plus=False))

    def _readdirplus(self, request: Request, row: int) -> None:
        _, offset, limit_bytes = kernel.READ_IN.unpack_from(request.body)
        self._channel.answer(request, self._tree.listing(row, offset, limit_bytes, plus=True))

    def _statfs(self, request: Request, _row: int) -> None:
        self._channel.answer(request, self._tree.statfs())

    def _getxattr(self, request: Request, row: int) -> None:
        name = _name(request.body[kernel.SIZE_OUT.size :])
        if not name.startswith(b"user."):
            # No ACLs and labels at all, not just none here: `ls -l` then stops asking for them.
            self._channel.fail(request, errno.EOPNOTSUPP)
            return
        value = self._xattrs(row).get(name)
        if value is None:
            self._channel.fail(request, errno.ENODATA)
        else:
            self._sized(request, value().encode("utf-8", "surrogateescape"))

    def _listxattr(self, request: Request, row: int) -> None:
        self._sized(request, b"".join(name + b"\0" for name in self._xattrs(row)))

    def _xattrs(self, row: int) -> dict[bytes, Callable[[], str]]:
        stored = self._stored
        found: dict[bytes, Callable[[], str]] = {XATTR_VERSION: lambda: stored.index.version}
        if row != ROOT and not stored.index.is_directory(row):
            found[XATTR_CACHED] = lambda: str(stored.cached_percent(row))
            if stored.index.etag(row):
                found[XATTR_ETAG] = lambda: stored.index.etag(row)
        return found

    def _sized(self, request: Request, value: bytes) -> None:
        room = kernel.SIZE_IN.unpack_from(request.body)[0]
        if room == 0:
            self._channel.answer(request, kernel.SIZE_OUT.pack(len(value), 0))
        elif room < len(value):
            self._channel.fail(request, errno.ERANGE)
        else:
            self._channel.answer(request, value)

    def _lseek(self, request: Request, row: int) -> None:
        _, offset, whence = kernel.LSEEK_IN.unpack_from(request.body)
        size = self._stored.index.size(row)
        if whence not in {os.SEEK_DATA, os.SEEK_HOLE}:
            self._channel.fail(request, errno.EINVAL)
        elif offset >= size:
            self._channel.fail(request, errno.ENXIO)
        else:  # no holes but the end
            found = offset if whence == os.SEEK_DATA else size
            self._channel.answer(request, kernel.OFFSET_OUT.pack(found))

    # -- the rest ---------------------------------------------------------------------------------

    def _interrupt(self, request: Request, _row: int) -> None:
        """Let a killed reader leave at once. The kernel takes an answer from any lane."""
        (unique,) = kernel.UNIQUE_IN.unpack_from(request.body)
        dropped = self._line.drop(unique) or self._opens.drop(unique)
        if not self._channel.interrupt(unique, dropped=dropped):
            self._channel.fail(request, errno.EAGAIN)  # come again: it is about to be parked

    def _done(self, request: Request, _row: int) -> None:
        self._channel.answer(request)


def _buffer(length: int) -> memoryview:
    """Room for bytes from the page cache.

    A large bytearray begins 16 bytes behind a page. AMD's Zen 3 copies a page there three times as
    slowly as anywhere else: its REP MOVSB takes source and target for one.
    """
    return memoryview(bytearray(SKIPPED_BYTES + length))[SKIPPED_BYTES:]


def _name(text: memoryview | bytes) -> bytes:
    """A name as the kernel sends it, with a NUL behind it. ValueError without one."""
    name, end, rest = bytes(text).partition(b"\0")
    if not end or rest:
        raise ValueError("a name ends with NUL")
    return name
