"""The plain FUSE mode: one thread answers the kernel from the shared store.

Threads: `serve` runs on the process's main thread and is the only reader of the FUSE fd. Reads that
must wait for the disk go to a few threads of our own, reads that miss to the worker's line; each
answers with a single write, which the kernel takes from any thread. More Python threads on one fd
are slower than one (they share one interpreter lock); more processes are the way to scale.
"""

from __future__ import annotations

import errno
import os
import select
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING

from cache_worker.mounts import kernel, readahead
from cache_worker.mounts.line import Read
from cache_worker.mounts.stored import COLD, MISS
from cache_worker.mounts.tree import row_of
from cacheop.api.chunk import CHUNK_BYTES
from cacheop.api.index import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

    from cache_worker.mounts.kernel import Init
    from cache_worker.mounts.line import Line
    from cache_worker.mounts.stored import StoredVersion
    from cache_worker.mounts.tree import Tree

TRIES_MAX = 16  # a worker that never sends the bytes in its answer is asked this often
DISK_THREADS = 8
STREAMS_MAX = 256
_GONE = frozenset({errno.ENODEV, errno.ECONNABORTED})
_AGAIN = frozenset({errno.ENOENT, errno.EINTR, errno.EAGAIN})
XATTR_CACHED = b"user.cacheop.cached"  # percent of the file on this node
XATTR_ETAG = b"user.cacheop.etag"
XATTR_VERSION = b"user.cacheop.version"

_HEADER_BYTES = kernel.IN_HEADER.size
_KEEP = kernel.OPEN_OUT.pack(0, kernel.FOPEN_KEEP_CACHE, 0)
_KEEP_DIRECTORY = kernel.OPEN_OUT.pack(0, kernel.FOPEN_KEEP_CACHE | kernel.FOPEN_CACHE_DIR, 0)


class Channel:
    """The FUSE fd: takes requests in, puts answers out."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._buffer = bytearray(kernel.REQUEST_MAX_BYTES)
        self._view = memoryview(self._buffer)

    def receive(self) -> tuple[int, int, int, memoryview] | None:
        """The next (op, unique, node, body), valid until the next call; None: unmounted."""
        while True:
            try:
                count = os.readv(self.fd, [self._buffer])
            except OSError as error:
                if error.errno in _GONE:
                    return None
                if error.errno not in _AGAIN:  # ENOENT: taken back while we were reading
                    raise
                continue
            fields = kernel.IN_HEADER.unpack_from(self._buffer)
            return fields[1], fields[2], fields[3], self._view[_HEADER_BYTES:count]

    def waits(self, seconds: float) -> bool:
        """Whether a request comes within `seconds`."""
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def answer(self, unique: int, body: bytes | memoryview = b"") -> None:
        """Send an answer."""
        self._write([kernel.header(unique, len(body)), body])

    def fail(self, unique: int, errno_code: int) -> None:
        """Send an errno."""
        self._write([kernel.failure(unique, errno_code)])

    def resend(self) -> bool:
        """Take over what a predecessor had in hand; False: this kernel cannot (before 6.9)."""
        try:
            os.write(self.fd, kernel.resend_notice())
        except OSError as error:
            if error.errno not in {errno.EINVAL, errno.ENODEV, errno.EPERM}:
                raise
            return False
        return True

    def _write(self, parts: list[bytes | memoryview]) -> None:
        try:
            os.writev(self.fd, parts)
        except OSError as error:
            # ENOENT: the asker is gone (interrupted); an unmount shows at the next receive.
            if error.errno not in _GONE and error.errno != errno.ENOENT:
                raise


class FuseMount:
    """One mount of one version in mode Fuse."""

    def __init__(
        self,
        channel: Channel,
        tree: Tree,
        stored: StoredVersion,
        line: Line,
        agreed_on: Callable[[Init], None],
    ) -> None:
        self._channel = channel
        self._tree = tree
        self._stored = stored
        self._line = line
        self._agreed_on = agreed_on
        self._view = memoryview(bytearray(kernel.READ_MAX_BYTES))  # main thread's
        self._streams: dict[int, readahead.Stream] = {}  # main thread's
        self._cold: SimpleQueue[Read] = SimpleQueue()
        self._disk_threads = 0
        self._answers: dict[int, Callable[[int, int, memoryview], None]] = {
            kernel.LOOKUP: self._lookup,
            kernel.GETATTR: self._getattr,
            kernel.OPEN: self._open,
            kernel.READ: self._read,
            kernel.RELEASE: self._done,
            kernel.RELEASEDIR: self._done,
            kernel.OPENDIR: self._opendir,
            kernel.READDIR: self._readdir,
            kernel.READDIRPLUS: self._readdirplus,
            kernel.STATFS: self._statfs,
            kernel.GETXATTR: self._getxattr,
            kernel.LISTXATTR: self._listxattr,
            kernel.LSEEK: self._lseek,
            kernel.INTERRUPT: self._interrupt,
            kernel.INIT: self._init,
            kernel.DESTROY: self._done,
        }

    def serve(self) -> None:
        """Answer until the mount ends."""
        receive, answers, channel = self._channel.receive, self._answers, self._channel
        while (request := receive()) is not None:
            op, unique, node, body = request
            answer = answers.get(op)
            if answer is not None:
                answer(unique, row_of(node), body)
            elif op not in kernel.NO_ANSWER:
                channel.fail(unique, errno.EROFS if op in kernel.WRITES else errno.ENOSYS)

    def answered(self, read: Read, payload: bytes | None, errno_code: int) -> None:
        """The worker's answer to a read that missed. On the line's thread."""
        if errno_code:
            # EAGAIN from a file means "nothing yet" to readers: Python's read() returns None on it.
            code = errno.EBUSY if errno_code == errno.EAGAIN else errno_code
            self._channel.fail(read.unique, code)
        elif payload is None:
            self._attempt(read, memoryview(bytearray(read.length)), wait=False)
        else:
            want = min(read.length, self._stored.index.size(read.row) - read.offset)
            if len(payload) == want:
                self._channel.answer(read.unique, payload)
            else:  # never short data
                self._channel.fail(read.unique, errno.EIO)

    def _init(self, unique: int, _row: int, body: memoryview) -> None:
        answer_init(self._channel, unique, body, self._agreed_on)

    def _lookup(self, unique: int, row: int, body: memoryview) -> None:
        self._channel.answer(unique, self._tree.lookup(row, bytes(body[:-1])))

    def _getattr(self, unique: int, row: int, _body: memoryview) -> None:
        self._channel.answer(unique, kernel.attributes_answer(self._tree.attributes(row)))

    def _open(self, unique: int, row: int, body: memoryview) -> None:
        if kernel.SIZE_IN.unpack_from(body)[0] & os.O_ACCMODE:
            self._channel.fail(unique, errno.EROFS)
            return
        self._channel.answer(unique, _KEEP)
        self._line.touch(row)

    def _read(self, unique: int, row: int, body: memoryview) -> None:
        _, offset, length = kernel.READ_IN.unpack_from(body)
        view = self._view
        count = self._stored.read(row, offset, view[:length], wait=False)
        if count >= 0:
            self._channel.answer(unique, view[:count])
            return
        read = Read(unique, row, offset, length)
        if count == COLD:
            self._later(read)
        else:
            self._line.ask(read)
            self._look_ahead(row, offset, length)

    def _look_ahead(self, row: int, offset: int, length: int) -> None:
        size = self._stored.index.size(row)
        if size <= CHUNK_BYTES:
            return
        stream = self._streams.pop(row, None) or readahead.Stream()
        self._streams[row], chunks = readahead.advance(stream, size, offset, length)
        if len(self._streams) > STREAMS_MAX:
            del self._streams[next(iter(self._streams))]
        for chunk in chunks:
            self._line.hint(row, chunk * CHUNK_BYTES)

    def _attempt(self, read: Read, view: memoryview, *, wait: bool) -> None:
        """Read now; what is not there (any more) is asked for again. On any thread."""
        count = self._stored.read(read.row, read.offset, view, wait=wait)
        if count >= 0:
            self._channel.answer(read.unique, view[:count])
        elif count == COLD:
            self._later(read)
        elif count == MISS and read.tries < TRIES_MAX:
            read.tries += 1
            self._line.ask(read)
        else:
            self._channel.fail(read.unique, errno.EIO)

    def _later(self, read: Read) -> None:
        self._cold.put(read)
        if self._disk_threads < DISK_THREADS and self._cold.qsize() > 0:
            self._disk_threads += 1
            # A daemon: it owns nothing but the buffer of the read in its hands.
            threading.Thread(target=self._read_cold, name="disk", daemon=True).start()

    def _read_cold(self) -> None:
        while True:
            read = self._cold.get()
            self._attempt(read, memoryview(bytearray(read.length)), wait=True)

    def _opendir(self, unique: int, _row: int, _body: memoryview) -> None:
        self._channel.answer(unique, _KEEP_DIRECTORY)

    def _readdir(self, unique: int, row: int, body: memoryview) -> None:
        _, offset, limit_bytes = kernel.READ_IN.unpack_from(body)
        self._channel.answer(unique, self._tree.listing(row, offset, limit_bytes, plus=False))

    def _readdirplus(self, unique: int, row: int, body: memoryview) -> None:
        _, offset, limit_bytes = kernel.READ_IN.unpack_from(body)
        self._channel.answer(unique, self._tree.listing(row, offset, limit_bytes, plus=True))

    def _statfs(self, unique: int, _row: int, _body: memoryview) -> None:
        self._channel.answer(unique, self._tree.statfs())

    def _getxattr(self, unique: int, row: int, body: memoryview) -> None:
        name = bytes(body[kernel.SIZE_OUT.size : -1])
        value = self._xattrs(row).get(name)
        if value is None:
            self._channel.fail(unique, errno.ENODATA)
        else:
            self._sized(unique, body, value().encode("utf-8", "surrogateescape"))

    def _listxattr(self, unique: int, row: int, body: memoryview) -> None:
        self._sized(unique, body, b"".join(name + b"\0" for name in self._xattrs(row)))

    def _xattrs(self, row: int) -> dict[bytes, Callable[[], str]]:
        stored = self._stored
        found: dict[bytes, Callable[[], str]] = {XATTR_VERSION: lambda: stored.index.version}
        if row != ROOT and not stored.index.is_directory(row):
            found[XATTR_CACHED] = lambda: str(stored.cached_percent(row))
            if stored.index.etag(row):
                found[XATTR_ETAG] = lambda: stored.index.etag(row)
        return found

    def _sized(self, unique: int, body: memoryview, value: bytes) -> None:
        room = kernel.SIZE_IN.unpack_from(body)[0]
        if room == 0:
            self._channel.answer(unique, kernel.SIZE_OUT.pack(len(value), 0))
        elif room < len(value):
            self._channel.fail(unique, errno.ERANGE)
        else:
            self._channel.answer(unique, value)

    def _lseek(self, unique: int, row: int, body: memoryview) -> None:
        _, offset, whence = kernel.LSEEK_IN.unpack_from(body)
        size = self._stored.index.size(row)
        if whence not in {os.SEEK_DATA, os.SEEK_HOLE}:
            self._channel.fail(unique, errno.EINVAL)
        elif offset >= size:
            self._channel.fail(unique, errno.ENXIO)
        else:  # no holes but the end
            found = offset if whence == os.SEEK_DATA else size
            self._channel.answer(unique, kernel.OFFSET_OUT.pack(found))

    def _interrupt(self, _unique: int, _row: int, body: memoryview) -> None:
        (unique,) = kernel.UNIQUE_IN.unpack_from(body)
        if self._line.drop(unique):
            self._channel.fail(unique, errno.EINTR)
        # Else it is answered in a moment: nothing but the line waits for long.

    def _done(self, unique: int, _row: int, _body: memoryview) -> None:
        self._channel.answer(unique)


def answer_init(
    channel: Channel, unique: int, body: memoryview, agreed_on: Callable[[Init], None]
) -> None:
    """Settle the protocol with the kernel; what was agreed is noted before the kernel knows."""
    major, offer = kernel.parse_init(body)
    if major != kernel.MAJOR or offer.minor < kernel.MINOR_LEAST:
        channel.fail(unique, errno.EPROTO)
        return
    agreed = kernel.agree(offer)
    agreed_on(agreed)
    channel.answer(unique, kernel.init_answer(agreed))


def refuse_all(channel: Channel, errno_code: int, agreed_on: Callable[[Init], None]) -> bool:
    """Answer the request that waits with an errno (INIT properly); False: unmounted."""
    request = channel.receive()
    if request is None:
        return False
    op, unique, _, body = request
    if op == kernel.INIT:
        answer_init(channel, unique, body, agreed_on)
    elif op not in kernel.NO_ANSWER and op != kernel.INTERRUPT:
        channel.fail(unique, errno_code)
    return True
