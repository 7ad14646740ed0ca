"""One connection that speaks the framed protocol, on the loop: frames in, frames out.

A transport calls us with what arrived, so a request costs one wake-up of the loop and no task but
its own. Whoever sends waits while the other side is slow to receive. What a connection was asked
for is cancelled when it ends.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING, cast

from cacheop.api import wire
from cacheop.api.errors import CacheopError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

log = logging.getLogger(__name__)

RECEIVE_BYTES = 64 << 10
RUNNING_MAX = 256
"""While this many tasks of a connection run, nothing more is received: it waits in the socket."""
_landing = memoryview(bytearray(RECEIVE_BYTES))
"""Of all connections: filled and emptied in one go on the one loop."""


class Connection(asyncio.BufferedProtocol):
    """One connection; what a frame means is up to `got`, which raises CacheopError to end it."""

    def __init__(self, got: Callable[[wire.Frame], None], payload_max_bytes: int) -> None:
        self.on_close: list[Callable[[], None]] = []
        """Called once when the connection ends."""
        self.same_machine = True
        self.got = got
        self._decoder = wire.Decoder(payload_max_bytes)
        self._transport: asyncio.Transport | None = None  # None: not yet, or no more
        self._room = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()

    def allow_payload(self, most_bytes: int) -> None:
        """Frames may carry so much from now on."""
        self._decoder.payload_max_bytes = most_bytes

    # -- what others call -------------------------------------------------------------------------

    async def send(self, head: bytes, payload: bytes | memoryview = b"") -> None:
        """Send a frame; returns when the next one may come. Lost when the connection has ended."""
        self.put(head, payload)
        if not self._room.is_set():
            await self._room.wait()

    def put(self, head: bytes, payload: bytes | memoryview = b"") -> None:
        """Send a small frame without waiting, however slow the other side is to receive."""
        if self._transport is not None:
            self._transport.write(head)
            if payload:
                self._transport.write(payload)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` as long as the connection lasts."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._done)
        if len(self._running) == RUNNING_MAX and self._transport is not None:
            self._transport.pause_reading()

    def close(self) -> list[asyncio.Task[None]]:
        """End it once what was sent is out; the tasks that were cancelled."""
        transport, self._transport = self._transport, None
        if transport is None:
            return []
        transport.close()
        self._room.set()
        cancelled = list(self._running)
        for task in cancelled:
            task.cancel()
        for callback in self.on_close:
            callback()
        return cancelled

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if len(self._running) == RUNNING_MAX - 1 and self._transport is not None:
            self._transport.resume_reading()
        if not task.cancelled() and task.exception():
            log.error("a request failed", exc_info=task.exception())

    # -- what the transport calls -----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It can be used from now on."""
        self._transport = cast("asyncio.Transport", transport)
        self._room.set()
        sock: socket.socket = transport.get_extra_info("socket")
        self.same_machine = sock.family == socket.AF_UNIX
        if not self.same_machine:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where to put what arrives."""
        del sizehint
        return _landing

    def buffer_updated(self, nbytes: int) -> None:
        """So much arrived."""
        try:
            for frame in self._decoder.feed(_landing[:nbytes]):
                if self._transport is None:
                    return
                self.got(frame)
        except CacheopError as error:
            log.warning("connection ended: %s", error)
            self.close()

    def pause_writing(self) -> None:
        """The other side is slow: whoever sends waits."""
        self._room.clear()

    def resume_writing(self) -> None:
        """It has caught up."""
        self._room.set()

    def eof_received(self) -> None:
        """The other side waits for nothing any more."""
        self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The other side is gone."""
        del exc
        self.close()
