"""The framed protocol's server: listening, authentication, requests.

How frames travel is in frames.py, what an operation means in operations.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import os
import secrets
from typing import TYPE_CHECKING, Any, Protocol

from cache_worker.frames import Connection
from cacheop.api import wire
from cacheop.api.errors import CacheopError, CredentialError, ProtocolError, to_wire
from cacheop.api.names import CLIENT_OPS, CONTROL_OPS
from cacheop.api.plan import PAYLOAD_MAX_BYTES
from cacheop.api.tokens import proof

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

AUTH_SECONDS = 10.0

Answer = tuple[dict[str, Any], bytes | memoryview]


class Operations(Protocol):
    """Carries out requests."""

    async def run(self, session: Session, request: wire.Frame) -> Answer:
        """The answer, or a CacheopError."""
        ...


class Server:
    """Owns the listening sockets and the connections."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self._servers: list[asyncio.Server] = []
        self._sessions: set[Session] = set()

    async def listen_unix(self, path: Path, mode: int, ops: frozenset[str]) -> None:
        """Serve `ops` on a unix socket; a stale one of a dead worker is replaced."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        # A unix socket's path holds 107 bytes (unix(7)); through the fd of its directory the depth
        # of the cache directory does not count.
        directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        loop = asyncio.get_running_loop()
        try:
            short = f"/proc/self/fd/{directory}/{path.name}"
            server = await loop.create_unix_server(lambda: self._session(ops, None), short)
        finally:
            os.close(directory)
        os.chmod(path, mode)
        self._servers.append(server)

    async def listen_tcp(self, host: str, port: int, tokens: dict[str, str]) -> str:
        """Serve who proves to know the token of a purpose; the address, host:port."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: self._session(frozenset(), tokens), host, port)
        self._servers.append(server)
        bound = server.sockets[0].getsockname()
        return f"{bound[0]}:{bound[1]}"

    async def close(self) -> None:
        """Stop listening and end all connections."""
        for server in self._servers:
            server.close()
        cancelled = [task for session in list(self._sessions) for task in session.close()]
        await asyncio.gather(*cancelled, return_exceptions=True)

    def _session(self, ops: frozenset[str], tokens: dict[str, str] | None) -> Session:
        session = Session(self._operations, ops, tokens)
        self._sessions.add(session)
        session.on_close.append(lambda: self._sessions.discard(session))
        return session


class Session(Connection):
    """One connection of somebody who asks; operations put their clean-up into `on_close`."""

    def __init__(
        self, operations: Operations, ops: frozenset[str], tokens: dict[str, str] | None
    ) -> None:
        super().__init__(self._request if tokens is None else self._authenticate, 0)
        if tokens is None:
            self.allow_payload(PAYLOAD_MAX_BYTES)
        self.ops = ops
        self.reader = ""
        """Names the job that reads, over all its connections; empty = this connection alone."""
        self.tells = False
        """Whether it read something, so that the policy is to hear of its end."""
        self._operations = operations
        self._tokens = tokens or {}
        self._nonce = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Challenge first, where that is asked for; only the right answer opens the session."""
        super().connection_made(transport)
        if self._tokens:
            self._nonce = secrets.token_hex(16)
            meta = {"op": "challenge", "nonce": self._nonce}
            self.put(wire.encode(wire.Frame(wire.EVENT, 0, meta)))
            late = asyncio.get_running_loop().call_later(AUTH_SECONDS, self._late)
            self.on_close.append(late.cancel)

    async def send_event(self, request_id: int, meta: dict[str, Any]) -> None:
        """Tell how far a running request is."""
        await self.send(wire.encode(wire.Frame(wire.EVENT, request_id, meta)))

    def _late(self) -> None:
        if not self.ops:
            self.close()

    def _authenticate(self, frame: wire.Frame) -> None:
        purpose = str(frame.meta.get("purpose"))
        token = self._tokens.get(purpose)
        given = str(frame.meta.get("mac"))
        if frame.meta.get("op") != "auth" or token is None:
            raise self._refuse(frame, ProtocolError("authenticate first"))
        if not hmac.compare_digest(proof(token, purpose, self._nonce).encode(), given.encode()):
            raise self._refuse(frame, CredentialError("wrong token", hint="Check CACHEOP_TOKEN"))
        self.ops = CONTROL_OPS if purpose == "control" else CLIENT_OPS
        self.got = self._request
        self.allow_payload(PAYLOAD_MAX_BYTES)
        self.put(wire.encode(wire.Frame(wire.RESPONSE, frame.request_id)))

    def _refuse(self, frame: wire.Frame, error: CacheopError) -> CacheopError:
        self.put(wire.encode(wire.Frame(wire.ERROR, frame.request_id, to_wire(error))))
        return error

    def _request(self, frame: wire.Frame) -> None:
        if frame.kind != wire.REQUEST:
            raise ProtocolError(f"a frame of kind {frame.kind} is not a request")
        self.start(self._answer(frame))

    async def _answer(self, request: wire.Frame) -> None:
        op = str(request.meta.get("op"))
        try:
            if op not in self.ops:
                raise ProtocolError(f"operation {op!r} is not served here")
            meta, payload = await self._operations.run(self, request)
            head = wire.encode_head(wire.RESPONSE, request.request_id, meta, len(payload))
        except CacheopError as error:
            head = wire.encode(wire.Frame(wire.ERROR, request.request_id, to_wire(error)))
            payload = b""
        except (KeyError, TypeError, ValueError, IndexError) as error:
            log.exception("operation %s failed", op)
            bad = ProtocolError(f"bad request {op!r}: {error!r}")
            head = wire.encode(wire.Frame(wire.ERROR, request.request_id, to_wire(bad)))
            payload = b""
        except OSError as error:
            log.exception("operation %s failed", op)
            failed = CacheopError(f"{op} failed: {error}", hint="The worker's log has more")
            head = wire.encode(wire.Frame(wire.ERROR, request.request_id, to_wire(failed)))
            payload = b""
        await self.send(head, payload)
