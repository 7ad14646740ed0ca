import asyncio
import time

from cache_worker.flow import Flow, Rate


async def _asker(flow, log, name, length=1, *, demand=True, hold=None):
    async with flow.pass_(length, demand=demand):
        log.append(name)
        if hold:
            await hold.wait()


def test_demand_goes_before_background():
    async def run():
        flow, log, hold = Flow(requests=1), [], asyncio.Event()
        tasks = [asyncio.create_task(_asker(flow, log, "first", hold=hold))]
        await asyncio.sleep(0)
        tasks += [
            asyncio.create_task(_asker(flow, log, "background", demand=False)),
            asyncio.create_task(_asker(flow, log, "demand")),
        ]
        await asyncio.sleep(0)
        hold.set()
        await asyncio.wait_for(asyncio.gather(*tasks), 5)
        assert log == ["first", "demand", "background"]

    asyncio.run(run())


def test_bytes_in_flight_are_bounded_and_one_large_request_always_fits():
    async def run():
        flow, log, hold = Flow(requests=10, bytes_=100), [], asyncio.Event()
        tasks = [asyncio.create_task(_asker(flow, log, n, 60, hold=hold)) for n in "abc"]
        await asyncio.sleep(0.01)
        assert log == [
            "a",
            "b",
        ]  # b begins while a byte is left: the bound is passed by one at most
        hold.set()
        await asyncio.wait_for(asyncio.gather(*tasks), 5)
        await asyncio.wait_for(_asker(flow, log, "large", 1000), 5)

    asyncio.run(run())


def test_a_cancelled_waiter_leaves_no_hole():
    async def run():
        flow, log, hold = Flow(requests=1), [], asyncio.Event()
        holder = asyncio.create_task(_asker(flow, log, "holder", hold=hold))
        await asyncio.sleep(0)
        gone = asyncio.create_task(_asker(flow, log, "gone"))
        late = asyncio.create_task(_asker(flow, log, "late"))
        await asyncio.sleep(0)
        gone.cancel()
        hold.set()
        await asyncio.wait_for(asyncio.gather(holder, late), 5)
        await asyncio.wait_for(_asker(flow, log, "after"), 5)
        assert log == ["holder", "late", "after"]

    asyncio.run(run())


def test_rate_keeps_to_its_bytes_per_second():
    async def run():
        rate, started = Rate(1_000_000), time.monotonic()
        for _ in range(4):
            await rate.wait(50_000)
        assert time.monotonic() - started >= 0.14
        await Rate(None).wait(1 << 40)

    asyncio.run(run())


def test_more_may_be_allowed_while_some_wait():
    async def body():
        flow, began = Flow(1), []
        gate = asyncio.Event()

        async def one(name):
            async with flow.pass_(1, demand=True):
                began.append(name)
                await gate.wait()

        tasks = [asyncio.create_task(one(name)) for name in "abc"]
        await asyncio.sleep(0)
        assert began == ["a"]
        flow.allow(2)
        await asyncio.sleep(0.01)
        assert began == ["a", "b"]
        flow.allow(1)
        gate.set()
        await asyncio.gather(*tasks)
        assert began == ["a", "b", "c"]

    asyncio.run(body())
