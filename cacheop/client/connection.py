"""One blocking connection to a worker: frames out, frames in, every wait with a deadline.

A connection belongs to one thread at a time; link.py hands them around.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import TYPE_CHECKING, Any

from cacheop.api import wire
from cacheop.api.errors import ProtocolError, UserError, from_wire
from cacheop.api.tokens import proof

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CONNECT_SECONDS, FIRST_SECONDS = 5.0, 1.0
SOCKET_PATH_BYTES = 107  # sun_path of AF_UNIX without its NUL


class Dropped(ConnectionError):  # noqa: N818 - a state, like the errors of cacheop.api
    """The other side closed the connection: the worker went or was started again."""


class Connection:
    """Owns its socket. Answers may come in another order than the requests went out."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._next_id = 0
        self._answers: dict[int, wire.Frame] = {}
        self._unwanted: set[int] = set()

    def send(self, op: str, meta: dict[str, Any], deadline: float, payload: bytes = b"") -> int:
        """Ask; the request id to `wait` for. Raises Dropped or TimeoutError."""
        self._next_id += 1
        head = wire.encode_head(wire.REQUEST, self._next_id, {"op": op, **meta}, len(payload))
        try:
            self._socket.settimeout(_left(deadline))
            self._socket.sendall(head + payload)
        except TimeoutError:
            raise
        except OSError as error:
            raise Dropped(str(error)) from error
        return self._next_id

    def send_and_forget(self, op: str, meta: dict[str, Any]) -> None:
        """Ask without ever waiting: the answer is thrown away when something else is read."""
        self._unwanted.add(self.send(op, meta, time.monotonic() + 0.1))

    def wait(self, request_id: int, deadline: float) -> wire.Frame:
        """The RESPONSE or ERROR frame with that id. Raises Dropped or TimeoutError."""
        while request_id not in self._answers:
            frame = self.receive(deadline)
            if frame.kind == wire.EVENT:
                continue
            if frame.request_id in self._unwanted:
                self._unwanted.discard(frame.request_id)
            else:
                self._answers[frame.request_id] = frame
        return self._answers.pop(request_id)

    def call(
        self, op: str, meta: dict[str, Any], deadline: float, payload: bytes = b""
    ) -> wire.Frame:
        """Ask and wait; an ERROR frame is raised as what it carries."""
        frame = self.wait(self.send(op, meta, deadline, payload), deadline)
        if frame.kind == wire.ERROR:
            raise from_wire(frame.meta)
        return frame

    def receive(self, deadline: float) -> wire.Frame:
        """The next frame, whatever it is."""
        header = self._exactly(wire.HEADER.size, deadline)
        kind, request_id, meta_bytes, payload_bytes = wire.decode_header(header)
        meta = wire.decode_meta(self._exactly(meta_bytes, deadline))
        return wire.Frame(kind, request_id, meta, self._exactly(payload_bytes, deadline))

    def _exactly(self, length: int, deadline: float) -> bytes:
        buffer = bytearray(length)
        view, at = memoryview(buffer), 0
        while at < length:
            try:
                self._socket.settimeout(_left(deadline))
                received = self._socket.recv_into(view[at:])
            except TimeoutError:
                raise
            except OSError as error:
                raise Dropped(str(error)) from error
            if received == 0:
                raise Dropped("the worker closed the connection")
            at += received
        view.release()
        return bytes(buffer)

    def close(self) -> None:
        """Hang up. After a fork this closes the child's copy only: no shutdown."""
        with contextlib.suppress(OSError):
            self._socket.close()


def connect_unix(path: Path) -> Connection:
    """Raises OSError if nobody listens at `path`."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(CONNECT_SECONDS)
    try:
        reach(sock, path)
    except BaseException:
        sock.close()
        raise
    return Connection(sock)


def reach(sock: socket.socket, path: Path) -> None:
    """Connect to a unix socket, however deep its path. Raises OSError."""
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES:
        sock.connect(os.fspath(path))
        return
    # The kernel takes short names only; by the directory's fd any depth is short.
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock.connect(f"/proc/self/fd/{directory}/{path.name}")
    finally:
        os.close(directory)


def connect_first(endpoints: Sequence[str], token: str) -> Connection:
    """To the first of `endpoints` where a worker answers. Raises OSError that tells of each.

    UserError and CredentialError are raised at once. All but the last have little time: the address
    of a Service without a worker on this node swallows what is sent to it.
    """
    failed = []
    for endpoint in endpoints:
        is_last = endpoint == endpoints[-1]
        try:
            return connect_tcp(endpoint, token, CONNECT_SECONDS if is_last else FIRST_SECONDS)
        except UserError:
            raise
        except OSError as error:
            failed.append(f"{endpoint}: {error.strerror or error}")
    raise ConnectionRefusedError("; ".join(failed))


def connect_tcp(endpoint: str, token: str, seconds: float = CONNECT_SECONDS) -> Connection:
    """Connect and prove to know `token`. Raises OSError, UserError, CredentialError."""
    host, _, port = endpoint.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"'{endpoint}' is not host:port", hint="Set CACHEOP_ENDPOINT=HOST:PORT")
    deadline = time.monotonic() + seconds
    sock = socket.create_connection((host.strip("[]"), int(port)), seconds)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection = Connection(sock)
    try:
        challenge = connection.receive(deadline)
        if challenge.kind != wire.EVENT or challenge.meta.get("op") != "challenge":
            raise ProtocolError(f"no challenge from {endpoint}", hint="Is it a cacheop worker?")
        mac = proof(token, "client", str(challenge.meta.get("nonce")))
        connection.call("auth", {"purpose": "client", "mac": mac}, deadline)
    except BaseException:
        connection.close()
        raise
    return connection


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
