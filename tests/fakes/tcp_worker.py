"""A worker's control port as the command line asks it: a challenge, then scripted answers."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Any, Self

from cacheop.api import wire
from cacheop.api.tokens import proof

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

NONCE = "n0nce"


class TcpWorker:
    """Answers every op by `answers`; notes what was asked."""

    def __init__(self, token: str, answers: Mapping[str, Callable[[dict[str, Any]], Any]]) -> None:
        self.asked: list[dict[str, Any]] = []
        self.connections = 0
        self._token, self._answers = token, answers
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        self._open: list[socket.socket] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """For good. May be called twice."""
        if self._listener.fileno() < 0:
            return
        # Closing alone would leave the one accept that waits.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()

    def hang_up(self) -> None:
        """As a worker that dies."""
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self.connections += 1
                self._open.append(sock)
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            challenge = {"op": "challenge", "nonce": NONCE}
            sock.sendall(wire.encode(wire.Frame(wire.EVENT, 0, challenge)))
            frames, proved = wire.Decoder(), False
            while data := sock.recv(1 << 16):
                for frame in frames.feed(data):
                    op = frame.meta["op"]
                    if op == "auth":
                        proved = frame.meta["mac"] == proof(self._token, "control", NONCE)
                        if not proved:
                            return
                        answer: Any = {}
                    else:
                        assert proved
                        self.asked.append(frame.meta)
                        answer = self._answers[op](frame.meta)
                    sock.sendall(wire.encode(wire.Frame(wire.RESPONSE, frame.request_id, answer)))
