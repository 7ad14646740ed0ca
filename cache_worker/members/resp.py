"""A Redis client of the few commands that members need: RESP2 over asyncio, pipelined.

redis-py would add 25 MB to every worker. Deadlines are the caller's, by asyncio.timeout; a
connection on which anything but a refusal happened is closed, as answers could be out of step.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeAlias, Union

from cacheop.api.errors import CacheopError, ProtocolError

if TYPE_CHECKING:
    from cache_worker.members.settings import RedisServer

    Word: TypeAlias = str | bytes | int

Reply: TypeAlias = Union[bytes, int, "Refused", list["Reply"], None]

ANSWER_MAX_BYTES = 4 << 20
"""Of one call: some 15,000 members."""
_ELEMENT_MIN_BYTES = 4


class Refused(CacheopError):  # noqa: N818 - a state, like ConnectionRefused
    """Redis understood and says no: wrong password, no right, out of memory and the like."""


class Connection:
    """One connection; one call at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._left = 0
        """How many bytes the answer under way may still have."""

    @classmethod
    async def open(cls, server: RedisServer) -> Connection:
        """Connect and say who we are. Raises OSError, Refused."""
        password = server.password_file.read_bytes().strip() if server.password_file else b""
        connection = cls(*await _connect(server))
        try:
            if password or server.user:
                who = (server.user,) if server.user else ()
                await connection.call(("AUTH", *who, password))
            if server.database:
                await connection.call(("SELECT", server.database))
        except BaseException:
            connection.close()
            raise
        return connection

    async def call(self, *commands: tuple[Word, ...]) -> list[Reply]:
        """The answers to all the commands. Raises the first Refused; OSError, ProtocolError."""
        self._left = ANSWER_MAX_BYTES
        try:
            self._writer.write(b"".join(encode(command) for command in commands))
            await self._writer.drain()
            replies = [await self._reply() for _ in commands]
        except BaseException as error:
            self.close()
            if isinstance(error, asyncio.IncompleteReadError):
                raise ConnectionResetError("Redis closed the connection") from error
            if isinstance(error, asyncio.LimitOverrunError):
                raise ProtocolError("what answers is no Redis: a line without end") from error
            raise
        for reply in replies:
            if isinstance(reply, Refused):
                raise reply
        return replies

    def close(self) -> None:
        """At once; may be called again."""
        self._writer.transport.abort()

    async def _reply(self, *, inner: bool = False) -> Reply:
        line = await self._reader.readuntil(b"\r\n")
        self._take(len(line))
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest
        if kind == b"-":
            return Refused(rest.decode(errors="replace"))
        if kind == b":":
            return _number(rest)
        if kind == b"$":
            return await self._bulk(_number(rest))
        if kind == b"*" and not inner:  # what we ask for is never nested
            count = _number(rest)
            if count < 0:
                return None
            self._check(count * _ELEMENT_MIN_BYTES)
            return [await self._reply(inner=True) for _ in range(count)]
        raise ProtocolError(f"what answers is no Redis: {line[:40]!r}")

    async def _bulk(self, length: int) -> bytes | None:
        if length < 0:
            return None
        self._take(length + 2)
        data = await self._reader.readexactly(length + 2)
        if data[-2:] != b"\r\n":
            raise ProtocolError(f"what answers is no Redis: {data[-2:]!r} ends a string")
        return data[:-2]

    def _take(self, count: int) -> None:
        self._check(count)
        self._left -= count

    def _check(self, count: int) -> None:
        if count > self._left:
            raise ProtocolError(
                f"Redis's answer is over {ANSWER_MAX_BYTES} bytes",
                hint="Delete what does not belong there from the hash of the members",
            )


def encode(words: tuple[Word, ...]) -> bytes:
    """One command."""
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        data = word if isinstance(word, bytes) else str(word).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


def milliseconds(reply: Reply) -> int:
    """The answer to TIME."""
    if isinstance(reply, list) and len(reply) == 2:
        seconds, micros = reply
        if isinstance(seconds, bytes) and isinstance(micros, bytes):
            return _number(seconds) * 1000 + _number(micros) // 1000
    raise ProtocolError(f"Redis answers TIME with {ascii(reply)[:80]}")


def pairs(reply: Reply) -> dict[bytes, bytes]:
    """The answer to HGETALL."""
    if isinstance(reply, list) and len(reply) % 2 == 0:
        found = [word for word in reply if isinstance(word, bytes)]
        if len(found) == len(reply):
            return dict(zip(found[::2], found[1::2], strict=True))
    raise ProtocolError(f"Redis answers HGETALL with {ascii(reply)[:80]}")


def count(reply: Reply) -> int:
    """The answer to INCR."""
    if isinstance(reply, int):
        return reply
    raise ProtocolError(f"Redis answers INCR with {ascii(reply)[:80]}")


def _number(text: bytes) -> int:
    if len(text) > 20 or not text.removeprefix(b"-").isdigit():
        raise ProtocolError(f"what answers is no Redis: {text[:40]!r} is no number")
    return int(text)


async def _connect(server: RedisServer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """To the first of its addresses that takes us."""
    loop = asyncio.get_running_loop()
    look_up = functools.partial(socket.getaddrinfo, type=socket.SOCK_STREAM)
    try:
        found = await loop.run_in_executor(_names, look_up, server.host, server.port)
    except UnicodeError as error:
        raise OSError(f"{server.host!r} is no name of a host") from error
    tls, name = (_tls(), server.host) if server.tls else (None, None)
    failure = OSError(f"{server.host} has no address")
    for *_, address in found:
        host, port = str(address[0]), int(address[1])
        try:
            return await asyncio.open_connection(host, port, ssl=tls, server_hostname=name)
        except OSError as error:
            failure = error
    raise failure


_names = ThreadPoolExecutor(1, thread_name_prefix="redis-name")
"""A name server that does not answer keeps this thread busy, not those that others wait for."""


@functools.cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()
