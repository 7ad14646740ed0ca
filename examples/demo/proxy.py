"""`python -m examples.demo.proxy PORT UPSTREAM_PORT DELAY_SECONDS BITS_PER_SECOND`: a slow link.

Stands between a client and the S3 server and makes it as far away as object storage is: each
request's first answering byte waits, and all connections share one bandwidth. Bytes pass unchanged:
the client signs the proxy's host and port and the server believes the Host header, so a signature
stays right. What passed is counted; `GET /_proxy` tells it as JSON, `PUT /_proxy?delay_seconds=S`
and `bits_per_second=B` (0 = no cap) set it while it runs.

A process of its own, one asyncio loop, which owns every connection. It ends when its standard input
closes: its owner is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
import urllib.parse
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Pay = Callable[[int], Awaitable[None]]

HOST = "127.0.0.1"
BUFFER_BYTES = 256 << 10
CONTROL_PATH = b"/_proxy"
DEFAULT_DELAY_SECONDS = 0.030
DEFAULT_BITS_PER_SECOND = 1e9


@dataclass(slots=True)
class Link:
    """The link's settings, and what passed so far. Bytes are those of answers' bodies."""

    delay_seconds: float = DEFAULT_DELAY_SECONDS
    bits_per_second: float = DEFAULT_BITS_PER_SECOND
    requests: int = 0
    bytes: int = 0


class Bucket:
    """One token bucket for all connections: when the next byte may pass, in the loop's time.

    It keeps a single number, the time at which what was admitted so far is through; up to
    `BURST_SECONDS` of unused bandwidth can be made up for.
    """

    BURST_SECONDS = 0.02

    def __init__(self, link: Link) -> None:
        self._link = link
        self._through = 0.0

    def admit(self, size_bytes: int, now: float) -> float:
        """Seconds to wait before these bytes may go on; they are booked at once."""
        if not self._link.bits_per_second:
            return 0.0
        start = max(self._through, now - self.BURST_SECONDS)
        self._through = start + size_bytes * 8 / self._link.bits_per_second
        return self._through - now


async def head(reader: asyncio.StreamReader) -> bytes:
    """One HTTP head with its blank line; empty when the other side has closed between messages."""
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise ConnectionError("the connection closed within a head") from error
        return b""


def header(head_bytes: bytes, name: bytes) -> bytes:
    """A header's value in lower case; empty when it is not there."""
    for line in head_bytes.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.strip().lower() == name:
            return value.strip().lower()
    return b""


class Proxy:
    """The server: one upstream connection for each client's, one request at a time on each."""

    def __init__(self, upstream_port: int, link: Link) -> None:
        self._upstream_port = upstream_port
        self._link = link
        self._bucket = Bucket(link)

    async def serve(self, client: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        """One client's connection, until either side closes it."""
        upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        # A side that breaks off is the other side's to notice: closing is the message.
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while request := await head(client):
                if request.split(b" ", 2)[1].startswith(CONTROL_PATH):
                    answer.write(self._control(request))
                    await answer.drain()
                    continue
                if upstream is None:
                    upstream = await asyncio.open_connection(
                        HOST, self._upstream_port, limit=BUFFER_BYTES
                    )
                if not await self._exchange(request, client, answer, upstream):
                    break
        for writer in (answer, upstream[1] if upstream else None):
            if writer is not None:
                writer.close()

    async def _exchange(
        self,
        request: bytes,
        client: asyncio.StreamReader,
        answer: asyncio.StreamWriter,
        upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> bool:
        """One request and its answer; whether the connections can be used again."""
        reader, writer = upstream
        arrived = time.monotonic()
        self._link.requests += 1
        writer.write(request)
        sending = asyncio.create_task(self._send(request, client, writer))
        try:
            response = await head(reader)
            while response.startswith(b"HTTP/1.1 100"):
                answer.write(response)
                response = await head(reader)
            await asyncio.sleep(max(0.0, arrived + self._link.delay_seconds - time.monotonic()))
            await self._wait(len(response))
            answer.write(response)
            if _has_body(request, response):
                await _body(response, reader, answer, self._paid)
            await answer.drain()
            if not response or header(response, b"connection") == b"close":
                return False
            await sending
        finally:
            sending.cancel()
            await asyncio.wait([sending])
        return header(request, b"connection") != b"close"

    async def _send(
        self, request: bytes, client: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """The request's body; a client that breaks off within it ends the upstream's wait too."""
        if request.startswith((b"GET ", b"HEAD ")):
            return
        try:
            await _body(request, client, writer, self._free)
        except (ConnectionError, asyncio.IncompleteReadError):
            writer.close()

    async def _paid(self, size_bytes: int) -> None:
        self._link.bytes += size_bytes
        await self._wait(size_bytes)

    async def _wait(self, size_bytes: int) -> None:
        """Until these bytes may pass."""
        wait = self._bucket.admit(size_bytes, time.monotonic())
        # Timers are no finer than a millisecond; what is owed below that is paid with the next.
        if wait > 0.001:
            await asyncio.sleep(wait)

    async def _free(self, _size_bytes: int) -> None:
        """Uploads are not slowed: they are set-up, not what the demo shows."""

    def _control(self, request: bytes) -> bytes:
        target = request.split(b" ", 2)[1].decode()
        wanted = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(target).query))
        status = HTTPStatus.OK
        try:
            values = {name: float(value) for name, value in wanted.items()}
        except ValueError:
            status, values = HTTPStatus.BAD_REQUEST, {}
        for name in values.keys() & {"delay_seconds", "bits_per_second"}:
            setattr(self._link, name, values[name])
        body = json.dumps(asdict(self._link)).encode()
        return (
            f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        ).encode() + body


def _has_body(request: bytes, response: bytes) -> bool:
    return not request.startswith(b"HEAD ") and response[9:12] not in {b"204", b"304"}


async def _body(
    message: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pay: Pay
) -> None:
    """Pass the body that follows a head: by length, by chunks, or (an answer) until the end."""
    length = header(message, b"content-length")
    if length:
        await _pass(int(length), reader, writer, pay)
    elif header(message, b"transfer-encoding") == b"chunked":
        while True:
            line = await reader.readuntil(b"\r\n")
            size_bytes = int(line.split(b";")[0], 16)
            writer.write(line)
            await _pass(size_bytes, reader, writer, pay)
            writer.write(await reader.readexactly(2))
            if size_bytes == 0:
                return
    elif message.startswith(b"HTTP/"):
        while block := await reader.read(BUFFER_BYTES):
            await pay(len(block))
            writer.write(block)
            await writer.drain()


async def _pass(
    left: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pay: Pay
) -> None:
    while left:
        block = await reader.read(min(left, BUFFER_BYTES))
        if not block:
            raise ConnectionError("the connection closed within a body")
        await pay(len(block))
        writer.write(block)
        await writer.drain()
        left -= len(block)


async def run(port: int, upstream_port: int, link: Link) -> None:
    """Serve until standard input closes; the first line of output is the port."""
    proxy = Proxy(upstream_port, link)
    server = await asyncio.start_server(proxy.serve, HOST, port, limit=BUFFER_BYTES, backlog=512)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.buffer.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(
        run(
            int(sys.argv[1]),
            int(sys.argv[2]),
            Link(delay_seconds=float(sys.argv[3]), bits_per_second=float(sys.argv[4])),
        )
    )
