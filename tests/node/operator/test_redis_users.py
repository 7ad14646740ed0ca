"""The users of Datasets in a real Redis: made, mended, removed."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from types import SimpleNamespace

import pytest

from cacheop.operator import naming
from cacheop.operator.redis_users import RedisUsers
from tests.fakes.cluster_facts import SETTINGS, document
from tests.fakes.redis_server import MISSING, SERVER, RedisServer

pytestmark = [pytest.mark.node, pytest.mark.skipif(not SERVER, reason=MISSING)]


@pytest.fixture
def redis(tmp_path):
    server = RedisServer(tmp_path).start()
    yield server
    server.close()


def user(uid):
    return {"user": naming.redis_user(uid), "password": SETTINGS.master.redis(uid)}


def datasets(*uids):
    found = {}
    for number, uid in enumerate(uids):
        one = document(f"data-{number}")
        one["metadata"]["uid"] = uid
        found["team", f"data-{number}"] = one
    return found


def test_a_new_dataset_has_its_user_before_its_worker_starts(redis):
    settings = replace(
        SETTINGS,
        redis_url=f"redis://127.0.0.1:{redis.port}/0",
        redis_password_file=redis.admin_file,
    )
    observer = SimpleNamespace(datasets=datasets("u1"))
    users = RedisUsers(settings, observer)  # type: ignore[arg-type]

    async def scenario():
        task = asyncio.create_task(users.run())
        await asyncio.sleep(0.5)
        assert redis.cli("PING", **user("u1")) == "PONG"
        observer.datasets = datasets("u1", "u2")
        users.soon()
        await asyncio.sleep(0.5)
        assert redis.cli("PING", **user("u2")) == "PONG"
        task.cancel()

    asyncio.run(scenario())


def test_each_dataset_has_its_user_and_no_more(redis):
    settings = replace(
        SETTINGS,
        redis_url=f"redis://127.0.0.1:{redis.port}/0",
        redis_password_file=redis.admin_file,
    )
    observer = SimpleNamespace(datasets=datasets("u1", "u2"))
    users = RedisUsers(settings, observer)  # type: ignore[arg-type]

    async def until(true):
        async with asyncio.timeout(20):
            while not true():  # noqa: ASYNC110
                await asyncio.sleep(0.1)

    async def scenario():
        task = asyncio.create_task(users.run())
        try:
            key = f"{naming.redis_prefix('u1')}members"
            await until(lambda: redis.cli("HSET", key, "a", "1", **user("u1")) == "1")
            assert "NOPERM" in redis.cli("HGETALL", key, **user("u2"))
            assert "NOPERM" in redis.cli("KEYS", "*", **user("u1"))
            # A Redis that was restarted knows nobody.
            redis.kill()
            redis.start()
            await until(lambda: redis.cli("PING", **user("u1")) == "PONG")
            redis.cli("HSET", key, "a", "1")
            observer.datasets = datasets("u2")
            await until(lambda: naming.redis_user("u1") not in redis.cli("ACL", "USERS"))
            assert redis.cli("EXISTS", key) == "0", "its keys go with it"
            assert redis.cli("PING", **user("u2")) == "PONG"
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    asyncio.run(scenario())
