"""The mount process's line to its worker: reads that miss, and what was opened without asking.

One thread owns the socket and alone receives and waits. FUSE threads put their read into `_waiting`
and send it themselves while nothing is queued before it, which spares a wake-up for each read; what
does not fit is queued for the thread. Whoever pops a read from `_waiting` answers it.
While no worker is there, reads wait and are sent again to the next one, until it has been away for
the grace time.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import threading
import time
from collections import Counter, deque
from itertools import count
from typing import TYPE_CHECKING

from cacheop.api.errors import CacheopError, ProtocolError, WorkerUnavailable, from_wire

# The socket, and what speaks the protocol, are imported by the line's thread: the first requests
# after a restart need not wait for that.
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from cache_worker.mounts.channel import Request
    from cacheop.api import wire

RETRY_SECONDS = 0.05
REFUSED_RETRY_SECONDS = 0.1
BIND_SECONDS = 60.0
ANSWER_SECONDS = 600.0  # a worker that is there answers within this, or the read fails with EIO
TICK_SECONDS = 1.0
# Gone again or unreadable this often: the bytes themselves are asked for, in the answer.
INLINE_TRIES = 3
TOUCHED_ROWS = 20_000  # a frame
RECEIVE_BYTES = 64 << 10  # for more, malloc maps new pages for every answer
SOCKET_PATH_BYTES = 107
ERROR, EVENT = 3, 4  # kinds of frames, as in cacheop.api.wire


class Read:
    """One request that waits for the worker to have bytes of a file."""

    __slots__ = ("asked", "length", "offset", "request", "row", "then", "tries")

    def __init__(
        self,
        request: Request,
        row: int,
        offset: int,
        length: int,
        then: Callable[[Read, bytes | None, int], None],
    ) -> None:
        self.request = request
        """Parked."""
        self.row, self.offset, self.length = row, offset, length
        self.then = then
        """Called once with (read, payload, errno), on the line's thread, unless dropped before.

        No payload and errno 0: the store holds the bytes now.
        """
        self.tries = 0
        """How often the store did not have what the worker had just put there."""
        self.asked = 0.0
        """time.monotonic() of the latest question."""


class Line:
    """Connection to `path`, made again whenever it breaks, bound to `version`.

    `ticked()` runs on its thread once a second.
    """

    def __init__(
        self,
        path: str,
        version: str,
        *,
        grace_seconds: float,
        ticked: Callable[[], None],
        report: Callable[[str], None],
    ) -> None:
        self.connections = 0
        """How many there were: what one worker was told, the next has not heard."""
        self._path = path
        self._version = version
        self._grace_seconds = grace_seconds
        self._ticked = ticked
        self._report = report
        self._ids = count(1)
        self._waiting: dict[int, Read] = {}
        self._sending = threading.Lock()
        self._socket: socket.socket | None = None  # under `_sending`: connected and bound
        self._out = bytearray()  # under `_sending`: what the socket would not take
        self._touched: deque[int] = deque(maxlen=1_000_000)
        self._lost: float | None = time.monotonic()
        self._connected = 0.0
        self._tick = time.monotonic() + TICK_SECONDS
        self._said = ""
        self._started = False
        self._doorbell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def start(self) -> None:
        """Start the thread if it does not run; a daemon, it ends with the process."""
        if self._started:
            return
        self._started = True
        threading.Thread(target=self._run, name="worker line", daemon=True).start()

    def ask(self, read: Read) -> None:
        """Get the bytes of `read` into the store; `read.then` is called once, unless dropped."""
        if self._touched:
            self._tell_touched()  # before it: the worker is to hear of reads in their order
        read.asked = time.monotonic()
        request = next(self._ids)
        self._waiting[request] = read
        self._send(request, self._question(read))

    def hint(self, row: int, offset: int) -> None:
        """Ask for the chunk at `offset` ahead of a reader; nobody waits for the answer."""
        self.tell(
            {"op": "read", "version": self._version, "row": row, "offset": offset, "length": 1}
        )

    def tell(self, meta: dict[str, object]) -> None:
        """Send what is only of use to a worker that is there; nobody waits for the answer."""
        if self._lost is None:
            self._send(next(self._ids), meta)

    def touch(self, row: int) -> None:
        """Count one opening of `row`; the worker hears of it within a second or so."""
        self._touched.append(row)

    def drop(self, unique: int) -> bool:
        """Forget the read that the kernel calls `unique`; True if it waited here."""
        for number, read in list(self._waiting.items()):
            if read.request.unique == unique:
                return self._waiting.pop(number, None) is not None
        return False

    def _send(self, number: int, meta: dict[str, object]) -> None:
        """Now if possible, else by the thread; lost with the connection, as `_waiting` is not."""
        frame = _frame(number, meta)
        with self._sending:
            sent = 0
            if self._socket is not None and not self._out:
                with contextlib.suppress(OSError):  # full or broken: the thread finds out which
                    sent = self._socket.send(frame)
            self._out += frame[sent:]
        if sent < len(frame):
            os.eventfd_write(self._doorbell, 1)

    def _question(self, read: Read) -> dict[str, object]:
        meta: dict[str, object] = {
            "op": "read",
            "version": self._version,
            "row": read.row,
            "offset": read.offset,
            "length": read.length,
        }
        if read.tries >= INLINE_TRIES:
            meta["inline"] = True
        return meta

    def _run(self) -> None:
        import socket

        from cacheop.api import wire

        while True:
            pause_seconds = RETRY_SECONDS
            try:
                with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
                    sock.settimeout(BIND_SECONDS)
                    _connect(sock, self._path)
                    decoder = wire.Decoder()
                    self._bind(sock, decoder)
                    self._lost, self._connected = None, time.monotonic()
                    self.connections += 1
                    self._say("the worker is there")
                    try:
                        self._converse(sock, decoder)
                    finally:
                        with self._sending:
                            self._socket = None
            except OSError as error:  # CacheopError among them
                if isinstance(error, CacheopError):
                    pause_seconds = REFUSED_RETRY_SECONDS
                    if not isinstance(error, (WorkerUnavailable, ProtocolError)):
                        self._fail_all(error.errno_code)
                self._say(f"waiting for the worker: {error}")
            self._lost = self._lost or time.monotonic()
            if time.monotonic() >= self._tick:
                self._tick_now()
            self._expire()
            time.sleep(pause_seconds)

    def _say(self, line: str) -> None:
        """Report a change once, not every retry."""
        if line != self._said:
            self._said = line
            self._report(line)

    def _bind(self, sock: socket.socket, decoder: wire.Decoder) -> None:
        request = next(self._ids)
        sock.sendall(_frame(request, {"op": "bind", "version": self._version}))
        deadline = time.monotonic() + BIND_SECONDS
        while time.monotonic() < deadline:
            for frame in decoder.feed(_receive(sock)):
                if frame.request_id != request or frame.kind == EVENT:
                    continue
                if frame.kind == ERROR:
                    raise from_wire(frame.meta)
                found = frame.meta.get("version")
                if found != self._version:
                    raise ProtocolError(f"bound to version {found!r}, not {self._version!r}")
                return
        raise WorkerUnavailable("the worker does not answer `bind`")

    def _converse(self, sock: socket.socket, decoder: wire.Decoder) -> None:
        sock.setblocking(False)
        with self._sending:
            # A read that comes meanwhile may be asked for twice, never not at all.
            self._out.clear()
            for number, read in list(self._waiting.items()):
                self._out += _frame(number, self._question(read))
            self._socket = sock
        poll = select.poll()
        poll.register(self._doorbell, select.POLLIN)
        while True:
            poll.register(sock, select.POLLIN | (select.POLLOUT if self._out else 0))
            ready = dict(poll.poll(max(0.0, self._tick - time.monotonic()) * 1000))
            if self._doorbell in ready:
                os.eventfd_read(self._doorbell)
            if time.monotonic() >= self._tick:
                self._tell_touched()
                self._expire()
                self._tick_now()
            with self._sending:
                if self._out:
                    with contextlib.suppress(BlockingIOError):
                        del self._out[: sock.send(self._out)]
            if ready.get(sock.fileno(), 0) & ~select.POLLOUT:
                for frame in decoder.feed(_receive(sock)):
                    self._settle(frame)

    def _tick_now(self) -> None:
        self._tick = time.monotonic() + TICK_SECONDS
        self._ticked()

    def _settle(self, frame: wire.Frame) -> None:
        if frame.kind == EVENT:
            return
        read = self._waiting.pop(frame.request_id, None)
        if read is None:  # dropped, a hint, or a count of what was touched
            return
        if frame.kind == ERROR:
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

    def _tell_touched(self) -> None:
        counts: Counter[int] = Counter()
        with contextlib.suppress(IndexError):
            while len(counts) < TOUCHED_ROWS:
                counts[self._touched.popleft()] += 1
        if counts:
            rows = {str(row): times for row, times in counts.items()}
            self.tell({"op": "touched", "version": self._version, "rows": rows})

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


def _frame(number: int, meta: dict[str, object]) -> bytes:
    from cacheop.api import wire

    return wire.encode_head(wire.REQUEST, number, meta, 0)


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
