"""The framed protocol's server: connections, requests, authentication.

What an operation means is in operations.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import os
import secrets
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from cacheop.api import wire
from cacheop.api.errors import CacheopError, CredentialError, ProtocolError, to_wire
from cacheop.api.names import CLIENT_OPS, CONTROL_OPS
from cacheop.api.tokens import proof

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

log = logging.getLogger(__name__)

IN_FLIGHT = 256
"""Requests of one connection that may run at a time; more wait in the socket."""
AUTH_SECONDS = 10.0

Answer = tuple[dict[str, Any], bytes | memoryview]


@dataclass(slots=True)
class Session:
    """One connection, as operations see it."""

    ops: frozenset[str]
    same_machine: bool
    send_event: Callable[[int, dict[str, Any]], Awaitable[None]]
    on_close: list[Callable[[], None]] = field(default_factory=list)
    """Called once when the connection ends; operations put their clean-up here."""


class Operations(Protocol):
    """Carries out requests."""

    async def run(self, session: Session, request: wire.Frame) -> Answer:
        """The answer, or a CacheopError."""
        ...


class Server:
    """Owns the listening sockets and one task per connection and per request."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self._servers: list[asyncio.Server] = []
        self._connections: set[asyncio.Task[None]] = set()

    async def listen_unix(self, path: Path, mode: int, ops: frozenset[str]) -> None:
        """Serve `ops` on a unix socket; a stale one of a dead worker is replaced."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        # A unix socket's path holds 107 bytes (unix(7)); through the fd of its directory the depth
        # of the cache directory does not count.
        directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            short = f"/proc/self/fd/{directory}/{path.name}"
            server = await asyncio.start_unix_server(self._accept(ops, None), path=short)
        finally:
            os.close(directory)
        os.chmod(path, mode)
        self._servers.append(server)

    async def listen_tcp(self, host: str, port: int, tokens: dict[str, str]) -> str:
        """Serve who proves to know the token of a purpose; the address, host:port."""
        server = await asyncio.start_server(self._accept(frozenset(), tokens), host, port)
        self._servers.append(server)
        bound = server.sockets[0].getsockname()
        return f"{bound[0]}:{bound[1]}"

    async def close(self) -> None:
        """Stop listening and end all connections."""
        for server in self._servers:
            server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(
        self, ops: frozenset[str], tokens: dict[str, str] | None
    ) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
        async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._connections.add(task)
            connection = _Connection(self._operations, reader, writer, ops)
            try:
                if tokens is not None:
                    await asyncio.wait_for(connection.authenticate(tokens), AUTH_SECONDS)
                await connection.serve()
            except (ConnectionError, asyncio.IncompleteReadError, TimeoutError):
                pass  # the other side went: its requests are cancelled below, nothing else to do
            except CacheopError as error:
                log.warning("connection ended: %s", error)
            except asyncio.CancelledError:
                pass  # the server closes
            finally:
                self._connections.discard(task)
                await connection.close()

        return accepted


class _Connection:
    def __init__(
        self,
        operations: Operations,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        ops: frozenset[str],
    ) -> None:
        self._operations, self._reader, self._writer = operations, reader, writer
        sock: socket.socket = writer.get_extra_info("socket")
        same_machine = sock.family == socket.AF_UNIX
        if not same_machine:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.session = Session(ops, same_machine, self._event)
        self._running: set[asyncio.Task[None]] = set()
        self._places = asyncio.Semaphore(IN_FLIGHT)

    async def authenticate(self, tokens: dict[str, str]) -> None:
        """Challenge first; only the right answer opens the session."""
        nonce = secrets.token_hex(16)
        await self._send(wire.Frame(wire.EVENT, 0, {"op": "challenge", "nonce": nonce}))
        frame = await self._receive()
        purpose = str(frame.meta.get("purpose"))
        token = tokens.get(purpose)
        given = str(frame.meta.get("mac"))
        if frame.meta.get("op") != "auth" or token is None:
            raise await self._refuse(frame, ProtocolError("authenticate first"))
        if not hmac.compare_digest(proof(token, purpose, nonce).encode(), given.encode()):
            raise await self._refuse(
                frame, CredentialError("wrong token", hint="Check CACHEOP_TOKEN")
            )
        self.session.ops = CONTROL_OPS if purpose == "control" else CLIENT_OPS
        await self._send(wire.Frame(wire.RESPONSE, frame.request_id))

    async def _refuse(self, frame: wire.Frame, error: CacheopError) -> CacheopError:
        await self._send(wire.Frame(wire.ERROR, frame.request_id, to_wire(error)))
        return error

    async def serve(self) -> None:
        """Answer requests until the other side ends."""
        while True:
            frame = await self._receive()
            if frame.kind != wire.REQUEST:
                raise ProtocolError(f"a frame of kind {frame.kind} is not a request")
            await self._places.acquire()
            task = asyncio.create_task(self._answer(frame))
            self._running.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._places.release()

    async def close(self) -> None:
        """Cancel what the other side asked for and does not wait for any more."""
        for task in list(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        for callback in self.session.on_close:
            callback()
        self._writer.close()

    async def _answer(self, request: wire.Frame) -> None:
        op = str(request.meta.get("op"))
        try:
            if op not in self.session.ops:
                raise ProtocolError(f"operation {op!r} is not served here")
            meta, payload = await self._operations.run(self.session, request)
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
        with contextlib.suppress(ConnectionError):
            self._writer.write(head)
            if payload:
                self._writer.write(payload)
            await self._writer.drain()

    async def _event(self, request_id: int, meta: dict[str, Any]) -> None:
        await self._send(wire.Frame(wire.EVENT, request_id, meta))

    async def _send(self, frame: wire.Frame) -> None:
        self._writer.write(wire.encode(frame))
        await self._writer.drain()

    async def _receive(self) -> wire.Frame:
        header = await self._reader.readexactly(wire.HEADER.size)
        kind, request_id, meta_bytes, payload_bytes = wire.decode_header(header)
        if payload_bytes:
            raise ProtocolError("requests carry no payload")
        meta = wire.decode_meta(await self._reader.readexactly(meta_bytes))
        return wire.Frame(kind, request_id, meta)
