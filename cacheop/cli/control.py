"""Blocking connections to single workers (docs/protocol.md), one request a time."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any

from cacheop.api import names, wire
from cacheop.api.errors import ProtocolError, UserError, WorkerUnavailable, from_wire
from cacheop.api.tokens import proof
from cacheop.client.connection import reach

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Self

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 30.0
RECEIVE_BYTES = 1 << 16


class Line:
    """Owned by one thread. `close` may be called from another to break off what is under way."""

    def __init__(self, sock: socket.socket, worker: str, ops: frozenset[str]) -> None:
        """`worker` says who is at the other end, `ops` what may be asked."""
        self._socket, self._worker, self._ops = sock, worker, ops
        self._frames = wire.Decoder()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up; the worker cancels what was asked for on this connection."""
        with contextlib.suppress(OSError):  # the other side was faster
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def ask(
        self,
        op: str,
        *,
        on_event: Callable[[dict[str, Any]], None] | None = None,
        silence_seconds: float = ANSWER_SECONDS,
        **meta: Any,
    ) -> dict[str, Any]:
        """The answer's meta; `on_event` gets what comes before it.

        Raises the error that the worker answers with, WorkerUnavailable when the connection ends or
        nothing at all comes for `silence_seconds`, UserError when this user may not ask that.
        """
        if op not in self._ops:
            raise UserError(
                f"{self._worker} is another user's: no right to ask for {op}",
                hint="Run this as the user who brought it up, or as root",
            )
        request = wire.Frame(wire.REQUEST, 1, {"op": op, **meta})
        try:
            self._socket.settimeout(CONNECT_SECONDS)
            self._socket.sendall(wire.encode(request))
            while True:
                for frame in self._receive(silence_seconds):
                    if frame.kind == wire.EVENT:
                        if on_event is not None:
                            on_event(frame.meta)
                    elif frame.kind == wire.ERROR:
                        raise from_wire(frame.meta)
                    elif frame.kind == wire.RESPONSE:
                        return frame.meta
                    else:
                        raise ProtocolError(f"the worker answered {op} with a request")
        except TimeoutError as error:
            raise WorkerUnavailable(
                f"{self._worker} did not answer {op} within {silence_seconds:.0f} s",
                hint="`cacheop status` shows its log if it is dead",
            ) from error
        except (ConnectionError, BrokenPipeError) as error:
            raise WorkerUnavailable(
                f"{self._worker} went away during {op}",
                hint="Its supervisor starts it again; try again in a moment",
            ) from error

    def _receive(self, silence_seconds: float) -> list[wire.Frame]:
        self._socket.settimeout(silence_seconds)
        data = self._socket.recv(RECEIVE_BYTES)
        if not data:
            raise ConnectionResetError
        return list(self._frames.feed(data))

    def prove(self, token: str) -> None:
        """Answer the worker's challenge, as is due over TCP. `token` is the control token."""
        try:
            frames = self._receive(CONNECT_SECONDS)
        except OSError as error:
            raise WorkerUnavailable(f"{self._worker} did not begin to speak: {error}") from error
        challenge = frames[0].meta if frames else {}
        if challenge.get("op") != "challenge":
            raise ProtocolError(
                f"no challenge from {self._worker}", hint="Is it a worker of cacheop?"
            )
        mac = proof(token, "control", str(challenge.get("nonce")))
        self.ask("auth", purpose="control", mac=mac)


class Control(Line):
    """A line to the worker that owns a cache directory of this machine."""

    def __init__(self, root: Path) -> None:
        """Connect to the worker that owns `root`. WorkerUnavailable if none listens."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(CONNECT_SECONDS)
        ops = names.CONTROL_OPS
        try:
            try:
                reach(sock, root / names.WORKER_SOCKET)
            except PermissionError:  # another user's worker: what every user may ask
                reach(sock, root / names.CLIENT_SOCKET)
                ops = names.CLIENT_OPS
        except OSError as error:
            sock.close()
            raise WorkerUnavailable(
                f"no worker answers at {root / names.WORKER_SOCKET}: {error.strerror or error}",
                hint="`cacheop status` shows what runs here",
            ) from error
        super().__init__(sock, f"the worker at {root}", ops)


def ask_once(root: Path, op: str, **meta: Any) -> dict[str, Any]:
    """Connect, ask one thing, hang up."""
    with Control(root) as control:
        return control.ask(op, **meta)
