"""Frames over a blocking socket; every wait has an end.

One thread reads and writes a Stream and closes it; any thread may `shutdown` it, which makes that
thread's call fail at once.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from dataclasses import dataclass
from typing import Any

from cache_worker.peers.errors import PeerUnavailable
from cacheop.api import wire
from cacheop.api.errors import ProtocolError

BUFFER_BYTES = 4096
"""Heads are read with what follows them; so much of a payload at most is copied for that."""
USER_TIMEOUT_MS = 8000
"""A link that is dead while something waits to be acknowledged is noticed after so long."""
KEEPALIVE_IDLE_SECONDS, KEEPALIVE_INTERVAL_SECONDS, KEEPALIVE_PROBES = 3, 1, 5


@dataclass(frozen=True, slots=True)
class Head:
    """A frame whose payload is still to be read."""

    kind: int
    request_id: int
    meta: dict[str, Any]
    payload_bytes: int


class FileEndedError(OSError):
    """A file is shorter than what was announced of it."""


def tune(sock: socket.socket) -> None:
    """No small packet waits, and a dead link is noticed though nobody sends."""
    tcp = socket.IPPROTO_TCP
    sock.setsockopt(tcp, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(tcp, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_SECONDS)
    sock.setsockopt(tcp, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_SECONDS)
    sock.setsockopt(tcp, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
    sock.setsockopt(tcp, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)


class Stream:
    """Owns a connected socket."""

    def __init__(self, sock: socket.socket, stall_seconds: float) -> None:
        """`stall_seconds`: how long the other side may stop in the middle of something."""
        self._sock = sock
        self._stall_seconds = stall_seconds
        self._buffer = memoryview(bytearray(BUFFER_BYTES))
        self._start = self._end = 0
        self._closing = threading.Lock()
        tune(sock)
        # The kernel's own timeouts: Python's would cost one poll(2) more for every call.
        sock.setblocking(True)
        seconds = int(stall_seconds)
        limit = struct.pack("ll", seconds, int((stall_seconds - seconds) * 1e6))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)

    def fileno(self) -> int:
        """For poll(2)."""
        return self._sock.fileno()

    def shutdown(self) -> None:
        """End the connection; from any thread, at any time."""
        with self._closing, contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the fd back."""
        with self._closing:
            self._sock.close()

    @property
    def is_ahead(self) -> bool:
        """Whether more came than was read."""
        return self._end > self._start

    def is_quiet(self) -> bool:
        """Whether the other side neither ended nor said anything, as it should between requests."""
        if self.is_ahead:
            return False
        try:
            self._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    # -- receiving --------------------------------------------------------------------------------

    def head(self, wait_seconds: float, meta_max_bytes: int = wire.META_MAX_BYTES) -> Head:
        """The next frame without its payload, which must be read before the next call.

        TimeoutError when it does not begin within `wait_seconds` (measured in stalls).
        """
        header = bytes(self._next(wire.HEADER.size, wait_seconds))
        kind, request_id, meta_bytes, payload_bytes = wire.decode_header(header)
        if meta_bytes > meta_max_bytes:
            raise ProtocolError(f"a frame with {meta_bytes} bytes of meta where few are right")
        if meta_bytes <= BUFFER_BYTES:
            body = self._next(meta_bytes, 0)
        else:
            body = memoryview(bytearray(meta_bytes))
            self.receive(body)
        return Head(kind, request_id, wire.decode_meta(body), payload_bytes)

    def receive(self, into: memoryview) -> None:
        """Fill `into` with what comes next."""
        done = min(len(into), self._end - self._start)
        if done:
            into[:done] = self._buffer[self._start : self._start + done]
            self._start += done
        while done < len(into):
            done += self._receive(into[done:], socket.MSG_WAITALL, 0)

    def _next(self, count: int, wait_seconds: float) -> memoryview:
        """The next few bytes; valid until the next call."""
        have = self._end - self._start
        if self._start + count > BUFFER_BYTES or not have:
            self._buffer[:have] = bytes(self._buffer[self._start : self._end])
            self._start, self._end = 0, have
        while self._end - self._start < count:
            wait = 0 if self._end > self._start else wait_seconds
            self._end += self._receive(self._buffer[self._end :], 0, wait)
        self._start += count
        return self._buffer[self._start - count : self._start]

    def _receive(self, into: memoryview, flags: int, wait_seconds: float) -> int:
        waited = 0.0
        while True:
            try:
                got = self._sock.recv_into(into, 0, flags)
            except BlockingIOError:
                waited += self._stall_seconds
                if waited < wait_seconds:
                    continue
                raise TimeoutError(f"nothing came for {waited:g} s") from None
            if not got:
                raise ConnectionResetError("the other side ended the connection")
            return got

    # -- sending ----------------------------------------------------------------------------------

    def send(self, data: bytes | bytearray | memoryview, *, more: bool = False) -> None:
        """Send all of it; `more`: what follows may go in the same packet."""
        try:
            self._sock.sendall(data, socket.MSG_MORE if more else 0)
        except BlockingIOError:
            raise TimeoutError(f"nothing was taken for {self._stall_seconds:g} s") from None

    def send_frame(self, frame: wire.Frame) -> None:
        """Send a frame with no or a small payload."""
        self.send(wire.encode(frame))

    def send_file(self, fd: int, offset: int, count: int) -> None:
        """Send bytes of a file without touching them."""
        while count:
            try:
                sent = os.sendfile(self._sock.fileno(), fd, offset, count)
            except BlockingIOError:
                raise TimeoutError(f"nothing was taken for {self._stall_seconds:g} s") from None
            if not sent:
                raise FileEndedError(f"a file ends {count} bytes early")
            offset += sent
            count -= sent


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `host:port` or `[v6]:port`."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise PeerUnavailable(f"the address {address!r} is not host:port")
    return host.strip("[]"), int(port)
