from __future__ import annotations

import asyncio
import contextlib

from cacheop.api.errors import CacheopError
from cacheop.operator.work_queue import WorkQueue


def run(scenario):
    asyncio.run(asyncio.wait_for(scenario(), 10))


@contextlib.asynccontextmanager
async def working(do, workers=4):
    queue = WorkQueue(do)
    task = asyncio.create_task(queue.run(workers))
    try:
        yield queue
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(true):
    while not true():  # noqa: ASYNC110
        await asyncio.sleep(0.001)


def test_many_wishes_are_one_piece_of_work():
    done = []

    async def scenario():
        async def do(key):
            done.append(key)

        async with working(do) as queue:
            for _ in range(50):
                queue.add(("a",))
                queue.add(("b",))
            await until(lambda: queue.depth == 0)

    run(scenario)
    assert sorted(done) == [("a",), ("b",)]


def test_a_key_is_never_done_twice_at_a_time_and_a_late_wish_is_not_lost():
    running, most, times = set(), [], []

    async def scenario():
        async def do(key):
            assert key not in running
            running.add(key)
            most.append(len(running))
            times.append(key)
            await asyncio.sleep(0.01)
            running.discard(key)

        async with working(do) as queue:
            for key in ("a", "b", "c"):
                queue.add((key,))
            await until(lambda: len(running) == 3)
            queue.add(("a",))
            queue.add(("a",))
            await until(lambda: queue.depth == 0)

    run(scenario)
    assert max(most) == 3
    assert times.count(("a",)) == 2


def test_a_failure_is_tried_again_and_stops_nobody():
    tries = []

    async def scenario():
        async def do(key):
            tries.append(key)
            if key == ("bad",) and tries.count(key) < 2:
                raise CacheopError("not yet")

        async with working(do, workers=1) as queue:
            queue.add(("bad",))
            queue.add(("good",))
            await until(lambda: tries.count(("bad",)) == 2)

    run(scenario)
    assert ("good",) in tries


def test_it_comes_again_when_it_said_so():
    times = []

    async def scenario():
        async def do(key):
            times.append(asyncio.get_running_loop().time())
            return 0.02 if len(times) < 3 else None

        async with working(do) as queue:
            queue.add(("a",))
            await until(lambda: len(times) == 3)
            await asyncio.sleep(0.05)

    run(scenario)
    assert len(times) == 3
    assert times[2] - times[0] >= 0.04


def test_the_earlier_of_two_times_counts():
    times = []

    async def scenario():
        async def do(key):
            times.append(key)

        async with working(do) as queue:
            queue.add_later(("a",), 60)
            queue.add_later(("a",), 0.01)
            queue.add_later(("a",), 30)
            await until(lambda: times)
            await asyncio.sleep(0.03)

    run(scenario)
    assert times == [("a",)]
