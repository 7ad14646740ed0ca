from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from cacheop.operator import naming
from cacheop.operator.kinds import LEASE
from cacheop.operator.lease import Lease, Lost
from tests.fakes.api_in_memory import ApiInMemory

SECONDS = 0.5


def run(scenario):
    asyncio.run(asyncio.wait_for(scenario(), 20))


def lease(api: ApiInMemory, name: str) -> Lease:
    return Lease(api, "system", name, SECONDS)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def held(one: Lease):
    await one.acquire()
    task = asyncio.create_task(one.hold())
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Lost):
            await task


def holder(api: ApiInMemory) -> str:
    return api.objects["leases", "system", naming.LEASE]["spec"]["holderIdentity"]


def test_one_acts_and_the_other_waits_until_it_is_dead():
    async def scenario():
        api = ApiInMemory()
        one, two = lease(api, "one"), lease(api, "two")
        async with held(one):
            waiting = asyncio.create_task(two.acquire())
            await asyncio.sleep(3 * SECONDS)
            assert not waiting.done()
        # `one` is dead: it renews no more. The record says whole seconds, so one second.
        began = time.monotonic()
        await waiting
        assert 0.5 < time.monotonic() - began < 1.5
        assert holder(api) == "two"

    run(scenario)


def test_who_ends_in_order_is_replaced_at_once():
    async def scenario():
        api = ApiInMemory()
        one, two = lease(api, "one"), lease(api, "two")
        async with held(one):
            waiting = asyncio.create_task(two.acquire())
            await asyncio.sleep(0.1)
        await one.release()
        began = time.monotonic()
        await waiting
        assert time.monotonic() - began < SECONDS

    run(scenario)


def test_without_an_api_server_nobody_acts_and_the_holder_goes_on_later():
    async def scenario():
        api = ApiInMemory()
        one = lease(api, "one")
        async with held(one):
            assert one.acting.is_set()
            api.away = True
            await asyncio.sleep(2 * SECONDS)
            assert not one.acting.is_set()
            api.away = False
            await asyncio.wait_for(one.acting.wait(), 5)

    run(scenario)


def test_who_lost_it_says_so():
    async def scenario():
        api = ApiInMemory()
        one = lease(api, "one")
        async with held(one) as task:
            spec = {"holderIdentity": "two", "leaseDurationSeconds": 9, "renewTime": "now"}
            api.put(LEASE, naming.LEASE, "system", spec=spec)
            with pytest.raises(Lost, match="two"):
                await asyncio.wait_for(task, 5)
            assert not one.acting.is_set()

    run(scenario)
