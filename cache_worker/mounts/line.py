"""The mount process's line to its worker: reads that miss, and what was opened without asking.

One thread owns the socket. FUSE threads only put work into `_waiting` and `_outbox` and wake it;
nobody but that thread ever waits for the worker. Whoever pops a read from `_waiting` answers it.
While no worker is there, reads wait and are sent again to the next one, until it has been away for
the grace time.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from cacheop.api import wire
from cacheop.api.errors import CacheopError, ProtocolError, WorkerUnavailable, from_wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from cache_worker.mounts.ring import Request

RETRY_SECONDS = 0.05
REFUSED_RETRY_SECONDS = 0.1
BIND_SECONDS = 60.0
ANSWER_SECONDS = 600.0  # a worker that is there answers within this, or the read fails with EIO
TICK_SECONDS = 1.0
# Gone again or unreadable this often: the bytes themselves are asked for, in the answer.
INLINE_TRIES = 3
TOUCHED_ROWS = 20_000  # a frame
RECEIVE_BYTES = 1 << 20
SOCKET_PATH_BYTES = 107


@dataclass(slots=True)
class Read:
    """A span of a file that a request of the kernel waits for."""

    request: Request | None
    """Whose; None: nobody waits (a hint)."""
    row: int
    offset: int
    length: int
    then: Callable[[Read, bytes | None, int], None]
    """Called once on the line's thread: (read, payload, errno). Payload None and errno 0 mean that
    the file holds the bytes now."""
    tries: int = 0
    """How often the store did not have what the worker had just put there."""
    asked: float = 0.0
    """time.monotonic() of the latest question."""


class Line:
    """Connection to `<root>/worker.sock`, made again whenever it breaks, bound to one version.

    `ticked()` runs on the line's thread once a second; what it returns is sent to the worker.
    """

    def __init__(
        self,
        path: str,
        version: str,
        *,
        grace_seconds: float,
        ticked: Callable[[], dict[str, object] | None],
        report: Callable[[str], None],
    ) -> None:
        self.version = version
        self._path = path
        self._grace_seconds = grace_seconds
        self._ticked = ticked
        self._report = report
        self._ids = count(1)
        self._waiting: dict[int, Read] = {}
        self._outbox: deque[bytes] = deque()
        self._touched: deque[int] = deque(maxlen=1_000_000)
        self._lost: float | None = time.monotonic()
        self._connected = 0.0
        self._said = ""
        self._doorbell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def start(self) -> None:
        """Start the thread; a daemon, it ends with the process."""
        threading.Thread(target=self._run, name="worker line", daemon=True).start()

    def ask(self, read: Read) -> None:
        """Get the bytes of `read` into the store; its `then` is called once, unless dropped."""
        read.asked = time.monotonic()
        request = next(self._ids)
        self._waiting[request] = read
        self._outbox.append(self._frame(request, read))
        os.eventfd_write(self._doorbell, 1)

    def hint(self, row: int, offset: int) -> None:
        """Ask for the chunk at `offset` ahead of a reader; nobody waits for the answer."""
        if self._lost is None:
            self._outbox.append(self._frame(next(self._ids), Read(None, row, offset, 1, _nobody)))
            os.eventfd_write(self._doorbell, 1)

    def touch(self, row: int) -> None:
        """Count one opening of `row`; the worker hears of it within a second or so."""
        self._touched.append(row)

    def drop(self, unique: int) -> Request | None:
        """Forget the read of the request `unique`; that request, if it waited here."""
        for number, read in list(self._waiting.items()):
            if read.request is not None and read.request.unique == unique:
                return read.request if self._waiting.pop(number, None) is not None else None
        return None

    def _frame(self, request: int, read: Read) -> bytes:
        meta: dict[str, object] = {
            "op": "read",
            "version": self.version,
            "row": read.row,
            "offset": read.offset,
            "length": read.length,
        }
        if read.tries >= INLINE_TRIES:
            meta["inline"] = True
        return wire.encode_head(wire.REQUEST, request, meta, 0)

    def _run(self) -> None:
        while True:
            pause_seconds = RETRY_SECONDS
            try:
                with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
                    sock.settimeout(BIND_SECONDS)
                    _connect(sock, self._path)
                    decoder = wire.Decoder()
                    self._bind(sock, decoder)
                    self._lost, self._connected = None, time.monotonic()
                    self._say("the worker is there")
                    self._converse(sock, decoder)
            except OSError as error:  # CacheopError among them
                if isinstance(error, CacheopError):
                    pause_seconds = REFUSED_RETRY_SECONDS
                    if not isinstance(error, (WorkerUnavailable, ProtocolError)):
                        self._fail_all(error.errno_code)
                self._say(f"waiting for the worker: {error}")
            self._lost = self._lost or time.monotonic()
            self._expire()
            time.sleep(pause_seconds)

    def _say(self, line: str) -> None:
        """Report a change once, not every retry."""
        if line != self._said:
            self._said = line
            self._report(line)

    def _bind(self, sock: socket.socket, decoder: wire.Decoder) -> None:
        request = next(self._ids)
        meta = {"op": "bind", "version": self.version}
        sock.sendall(wire.encode_head(wire.REQUEST, request, meta, 0))
        deadline = time.monotonic() + BIND_SECONDS
        while time.monotonic() < deadline:
            for frame in decoder.feed(_receive(sock)):
                if frame.request_id != request or frame.kind == wire.EVENT:
                    continue
                if frame.kind == wire.ERROR:
                    raise from_wire(frame.meta)
                found = str(frame.meta.get("version", ""))
                if self.version != found:
                    raise ProtocolError(f"bound to version {found!r}, not {self.version!r}")
                return
        raise WorkerUnavailable("the worker does not answer `bind`")

    def _converse(self, sock: socket.socket, decoder: wire.Decoder) -> None:
        sock.setblocking(False)
        self._outbox.clear()
        # After the clearing: a read that came in between may be asked for twice, never not at all.
        out = bytearray()
        for request, read in list(self._waiting.items()):
            out += self._frame(request, read)
        poll = select.poll()
        poll.register(self._doorbell, select.POLLIN)
        tick = time.monotonic() + TICK_SECONDS
        while True:
            poll.register(sock, select.POLLIN | (select.POLLOUT if out else 0))
            ready = dict(poll.poll(max(0.0, tick - time.monotonic()) * 1000))
            if self._doorbell in ready:
                os.eventfd_read(self._doorbell)
            with contextlib.suppress(IndexError):
                while True:
                    out += self._outbox.popleft()
            if time.monotonic() >= tick:
                tick = time.monotonic() + TICK_SECONDS
                out += self._touched_frame()
                self._expire()
                said = self._ticked()
                if said is not None:
                    out += wire.encode_head(wire.REQUEST, next(self._ids), said, 0)
            if out:
                with contextlib.suppress(BlockingIOError):
                    del out[: sock.send(out)]
            if ready.get(sock.fileno(), 0) & ~select.POLLOUT:
                for frame in decoder.feed(_receive(sock)):
                    self._settle(frame)

    def _settle(self, frame: wire.Frame) -> None:
        if frame.kind == wire.EVENT:
            return
        read = self._waiting.pop(frame.request_id, None)
        if read is None:  # dropped, a hint, or a count of what was touched
            return
        if frame.kind == wire.ERROR:
            error = from_wire(frame.meta)
            if not isinstance(error, WorkerUnavailable):
                self._report(f"read failed: {error}")
                read.then(read, None, error.errno_code)
            else:  # it is going away: the next one will know
                self._waiting[frame.request_id] = read
                raise error
        elif frame.meta.get("present") is True:
            read.then(read, None, 0)
        else:
            read.then(read, bytes(frame.payload), 0)

    def _touched_frame(self) -> bytes:
        counts: Counter[int] = Counter()
        with contextlib.suppress(IndexError):
            while len(counts) < TOUCHED_ROWS:
                counts[self._touched.popleft()] += 1
        if not counts:
            return b""
        rows = {str(row): times for row, times in counts.items()}
        meta = {"op": "touched", "version": self.version, "rows": rows}
        return wire.encode_head(wire.REQUEST, next(self._ids), meta, 0)

    def _expire(self) -> None:
        now = time.monotonic()
        away = self._lost is not None and now - self._lost > self._grace_seconds
        for request, read in list(self._waiting.items()):
            asked = max(read.asked, self._connected)
            late = self._lost is None and now - asked > ANSWER_SECONDS
            if (away or late) and self._waiting.pop(request, None) is not None:
                read.then(read, None, errno.EIO)

    def _fail_all(self, errno_code: int) -> None:
        for request, read in list(self._waiting.items()):
            if self._waiting.pop(request, None) is not None:
                read.then(read, None, errno_code)


def _nobody(_read: Read, _payload: bytes | None, _errno: int) -> None:
    """Nobody waits for a hint."""


def _connect(sock: socket.socket, path: str) -> None:
    """Connect, also to a path longer than a socket address holds."""
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES:
        sock.connect(path)
        return
    directory, name = os.path.split(path)
    fd = os.open(directory, os.O_PATH | os.O_CLOEXEC)
    try:
        sock.connect(f"/proc/self/fd/{fd}/{name}")
    finally:
        os.close(fd)


def _receive(sock: socket.socket) -> bytes:
    """What has arrived; ConnectionResetError at the end of the stream."""
    data = sock.recv(RECEIVE_BYTES)
    if not data:
        raise ConnectionResetError(errno.ECONNRESET, "the worker closed the connection")
    return data
