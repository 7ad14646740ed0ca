"""Keeps the Redis user of every Dataset: set at once, again at each connect and every 5 s.

So a Redis that was restarted without them, and passwords of another epoch, mend by themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cacheop.api.redis_acl import rules
from cacheop.operator import naming

if TYPE_CHECKING:
    from cacheop.operator.observe import Observer
    from cacheop.operator.settings import Settings

log = logging.getLogger("cacheop.operator")

SET_SECONDS = 5.0
CALL_SECONDS = 5.0
BATCH = 100


class RedisUsers:
    """Owns one connection to the Redis, as who may make users there."""

    def __init__(self, settings: Settings, observer: Observer) -> None:
        self._settings, self._observer = settings, observer
        self._set: set[str] = set()
        """Uids whose user we made."""
        self._away = False
        self._new = asyncio.Event()

    def soon(self) -> None:
        """There is a new Dataset, whose workers are about to start."""
        self._new.set()

    async def run(self) -> None:
        """Until cancelled. A Redis that is away costs nobody a read."""
        if not self._settings.redis_url:
            return
        while True:
            try:
                await self._keep()
            except (OSError, EOFError, TimeoutError, ValueError) as error:
                if not self._away:
                    log.warning("Redis users are not kept: %s; trying again", error)
                self._away = True
                await asyncio.sleep(SET_SECONDS / 2)

    async def _keep(self) -> None:
        url = urlsplit(self._settings.redis_url)
        tls = ssl.create_default_context() if url.scheme == "rediss" else None
        database = int(url.path.strip("/") or 0)
        async with asyncio.timeout(CALL_SECONDS):
            reader, writer = await asyncio.open_connection(url.hostname, url.port or 6379, ssl=tls)
        try:
            await self._log_in(reader, writer)
            while True:
                self._new.clear()
                await self._round(reader, writer, database)
                if self._away:
                    log.info("Redis users are kept again")
                self._away = False
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(SET_SECONDS):
                        await self._new.wait()
        finally:
            writer.close()

    async def _log_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        file = self._settings.redis_password_file
        if file is not None:
            user = self._settings.redis_admin or "default"
            await _call(reader, writer, [("AUTH", user, file.read_text().strip())])

    async def _round(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, database: int
    ) -> None:
        uids = sorted(d["metadata"]["uid"] for d in self._observer.datasets.values())
        for at in range(0, len(uids), BATCH):
            await _call(
                reader, writer, [self._user(uid, database) for uid in uids[at : at + BATCH]]
            )
        gone = self._set - set(uids)
        if gone:
            words = [("ACL", "DELUSER", *(naming.redis_user(uid) for uid in sorted(gone)))]
            if database:
                words.append(("SELECT", str(database)))
            for uid in sorted(gone):
                prefix = naming.redis_prefix(uid)
                words.append(("DEL", f"{prefix}members", f"{prefix}joined"))
            await _call(reader, writer, words)
        self._set = set(uids)

    def _user(self, uid: str, database: int) -> tuple[str, ...]:
        password = self._settings.master.redis(uid).encode()
        allowed = rules(naming.redis_prefix(uid), password, database)
        return ("ACL", "SETUSER", naming.redis_user(uid), *allowed)


async def _call(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, commands: list[tuple[str, ...]]
) -> None:
    """Send commands together; raises OSError for the first that is answered with an error."""
    for words in commands:
        parts = [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
        writer.write(f"*{len(words)}\r\n{''.join(parts)}".encode())
    async with asyncio.timeout(CALL_SECONDS):
        await writer.drain()
        for words in commands:
            line = await reader.readuntil(b"\r\n")
            if line[:1] == b"-":
                raise OSError(f"{words[0]} {words[1]}: {line[1:-2].decode(errors='replace')}")
            if line[:1] not in b"+:":
                raise OSError(f"what listens there is no Redis: {line[:40]!r}")
