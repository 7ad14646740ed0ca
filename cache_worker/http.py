"""/metrics and /healthz over HTTP/1.1: two fixed answers do not need a web framework's 18 MB."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

REQUEST_SECONDS = 5.0
REQUEST_MAX_BYTES = 8192


class HttpServer:
    """Owns one listening socket; every connection is one request."""

    def __init__(self, metrics: Callable[[], bytes], health: Callable[[], dict[str, Any]]) -> None:
        self._metrics, self._health = metrics, health
        self._server: asyncio.Server | None = None

    async def listen(self, host: str, port: int) -> str:
        """The address that was bound, host:port."""
        self._server = await asyncio.start_server(self._serve, host, port, limit=REQUEST_MAX_BYTES)
        bound = self._server.sockets[0].getsockname()
        return f"{bound[0]}:{bound[1]}"

    def close(self) -> None:
        """Stop listening."""
        if self._server:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
            status, kind, body = self._answer(head.split(b" ")[1].split(b"?")[0])
            writer.write(
                f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
                "Connection: close\r\n\r\n".encode()
                + body
            )
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, IndexError):
            pass  # not a request we know: the connection is closed, the asker sees that
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _answer(self, path: bytes) -> tuple[str, str, bytes]:
        if path == b"/metrics":
            return "200 OK", "text/plain; version=0.0.4; charset=utf-8", self._metrics()
        if path == b"/healthz":
            health = self._health()
            status = "200 OK" if health["ready"] else "503 Service Unavailable"
            return status, "application/json", json.dumps(health).encode() + b"\n"
        return "404 Not Found", "text/plain", b"/metrics or /healthz\n"
