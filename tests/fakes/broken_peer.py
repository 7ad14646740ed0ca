"""A member that is none: it listens, and does to who connects what the test says."""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
from typing import TYPE_CHECKING, Any, Self

from cacheop.api import wire
from cacheop.api.tokens import peer_token, proof

if TYPE_CHECKING:
    from collections.abc import Callable

FACTS = {"capacity_bytes": 1 << 40, "instance": "broken", "joined": 1}


class BrokenPeer:
    """Proves its token and answers `hello`; `get` is for `break_off(socket, request)`.

    `protocol`: the one that it claims in its greeting; `garbage`: it never greets at all.
    """

    def __init__(
        self,
        node: str,
        token: str,
        break_off: Callable[[socket.socket, wire.Frame], None] | None = None,
    ) -> None:
        self.node, self.token = node, peer_token(token)
        self.break_off = break_off or (lambda sock, request: sock.sendall(secrets.token_bytes(500)))
        self.asked: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        decoder = wire.Decoder()
        with contextlib.suppress(OSError), sock:
            challenge = {"op": "challenge", "nonce": "0" * 32}
            sock.sendall(wire.encode(wire.Frame(wire.EVENT, 0, challenge)))
            while data := sock.recv(1 << 16):
                for request in decoder.feed(data):
                    self._answer(sock, request)

    def _answer(self, sock: socket.socket, request: wire.Frame) -> None:
        op = str(request.meta["op"])
        self.asked.append(op)
        meta: dict[str, Any] = {"node": self.node}
        if op == "auth":
            meta["mac"] = proof(self.token, "peer-server", str(request.meta["nonce"]))
        elif op == "hello":
            meta |= FACTS
        elif op == "get":
            self.break_off(sock, request)
            raise ConnectionAbortedError
        sock.sendall(wire.encode(wire.Frame(wire.RESPONSE, request.request_id, meta)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
