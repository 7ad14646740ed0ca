"""Asking a worker on its control port, as who knows its control token (docs/protocol.md)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from cacheop.api import wire
from cacheop.api.errors import ProtocolError, WorkerUnavailable, from_wire
from cacheop.api.tokens import proof
from cacheop.operator.manifests.network import CLIENTS

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

CONNECT_SECONDS = 3.0
ANSWER_SECONDS = 10.0
READ_BYTES = 1 << 16


class Worker:
    """One connection, one request at a time. `async with Worker(ip, token) as worker:`."""

    def __init__(self, ip: str, token: str, port: int = CLIENTS) -> None:
        self._ip, self._port, self._token = ip, port, token
        self._frames = wire.Decoder()
        self._waiting: list[wire.Frame] = []
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def __aenter__(self) -> Self:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                self._reader, self._writer = await asyncio.open_connection(self._ip, self._port)
        except (OSError, TimeoutError) as error:
            raise WorkerUnavailable(f"no worker answers at {self._ip}:{self._port}") from error
        try:
            challenge = await self._receive(CONNECT_SECONDS)
            if challenge.kind != wire.EVENT or challenge.meta.get("op") != "challenge":
                raise ProtocolError(f"no challenge from {self._ip}:{self._port}")
            mac = proof(self._token, "control", str(challenge.meta.get("nonce")))
            await self.ask("auth", purpose="control", mac=mac)
        except BaseException:
            self._writer.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def ask(
        self,
        op: str,
        *,
        on_event: Callable[[dict[str, Any]], None] | None = None,
        silence_seconds: float = ANSWER_SECONDS,
        **meta: Any,
    ) -> dict[str, Any]:
        """The answer's meta; `on_event` gets what comes before it.

        Raises what the worker answers with, or WorkerUnavailable when nothing comes for so long.
        """
        try:
            self._writer.write(wire.encode(wire.Frame(wire.REQUEST, 1, {"op": op, **meta})))
            await self._writer.drain()
        except OSError as error:
            raise WorkerUnavailable(f"the worker at {self._ip} went away during {op}") from error
        while True:
            frame = await self._receive(silence_seconds)
            if frame.kind == wire.ERROR:
                raise from_wire(frame.meta)
            if frame.kind == wire.RESPONSE:
                return frame.meta
            if on_event is not None:
                on_event(frame.meta)

    async def _receive(self, seconds: float) -> wire.Frame:
        while not self._waiting:
            try:
                async with asyncio.timeout(seconds):
                    data = await self._reader.read(READ_BYTES)
            except TimeoutError as error:
                raise WorkerUnavailable(f"the worker at {self._ip} says nothing") from error
            except OSError as error:
                raise WorkerUnavailable(f"the worker at {self._ip} went away") from error
            if not data:
                raise WorkerUnavailable(f"the worker at {self._ip} hung up")
            self._waiting += self._frames.feed(data)
        return self._waiting.pop(0)
