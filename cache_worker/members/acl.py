"""`python -m cache_worker redis-acl CONFIG`: keeps the Dataset's user in a Redis.

Run by who may make users there: it needs `members.redis` and `redis_admin` of CONFIG. The user is
set again at each connect and every 5 s, so a Redis that was restarted without it, and a password
that was changed in its file, are mended without anybody.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING

from cache_worker.members import resp
from cache_worker.members.outage import Outage
from cacheop.api.errors import CacheopError, UserError
from cacheop.api.redis_acl import rules

if TYPE_CHECKING:
    from cache_worker.members.settings import RedisPlace, RedisServer

log = logging.getLogger("cacheop.members")

SET_SECONDS = 5.0
DEADLINE_SECONDS = 2.0


async def keep(admin: RedisServer, place: RedisPlace) -> None:
    """Set the user again and again, until cancelled."""
    outage = Outage(f"redis-acl: {admin}", "Trying again")
    while True:
        try:
            await _keep_over_one_connection(admin, place, outage)
        except OSError as error:
            await asyncio.sleep(outage.failed(error))


async def _keep_over_one_connection(admin: RedisServer, place: RedisPlace, outage: Outage) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        connection = await resp.Connection.open(admin)
    try:
        while True:
            user, file = place.server.user, place.server.password_file
            password = file.read_bytes().strip() if file else b""
            if not password:
                raise OSError(f"{file} has no password for {user}")
            allowed = rules(place.prefix, password, place.server.database)
            async with asyncio.timeout(DEADLINE_SECONDS):
                await connection.call(("ACL", "SETUSER", user, *allowed))
            outage.over()
            await asyncio.sleep(SET_SECONDS)
    finally:
        connection.close()


def checked(admin: RedisServer | None, place: RedisPlace | None) -> tuple[RedisServer, RedisPlace]:
    """Both, when they make sense together. Raises UserError. Pure."""
    if admin is None or place is None:
        missing = "members.redis" if place is None else "redis_admin"
        raise UserError(f"{missing} is not in CONFIG", hint="redis-acl needs both")
    if place.server.user in {"", "default", admin.user}:
        # Its rights are about to be cut: must be nobody else's.
        raise UserError(
            f"members.redis.url: {place.server.user or 'no user'!r} cannot be the Dataset's user",
            hint="Name one of its own: redis://cacheop-NS-NAME@host:port/0",
        )
    return admin, place


async def _run(admin: RedisServer, place: RedisPlace) -> None:
    task = asyncio.ensure_future(keep(admin, place))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()


def main(arguments: list[str]) -> int:
    """Until a signal. Exit code 2: the configuration is wrong."""
    from cache_worker.settings import load

    if len(arguments) != 1:
        sys.stderr.write("usage: python -m cache_worker redis-acl CONFIG\n")
        return 2
    logging.basicConfig(
        level=os.environ.get("CACHEOP_LOG", "INFO"),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    try:
        cluster = load(arguments[0]).cluster
        asyncio.run(_run(*checked(cluster.redis_admin, cluster.redis)))
    except CacheopError as error:
        log.error("%s", error)  # noqa: TRY400 - the message says it all
        return error.exit_code
    return 0
