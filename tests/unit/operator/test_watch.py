from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from cacheop.operator.kinds import CLAIM, NODE
from cacheop.operator.watch import Watch
from tests.fakes.api_in_memory import ApiInMemory


def run(scenario, **options):
    async def whole():
        api, changes = ApiInMemory(), []
        watch: Watch[int] = Watch(
            api,  # type: ignore[arg-type]
            options.get("kind", NODE),
            lambda document: document.get("value"),
            lambda key, before, after: changes.append((key[1], before, after)),
            namespaces=options.get("namespaces", ()),
        )
        task = asyncio.create_task(watch.run())
        try:
            await asyncio.wait_for(scenario(api, watch, changes), 10)
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    asyncio.run(whole())


async def until(true: Any) -> None:
    while not true():  # noqa: ASYNC110
        await asyncio.sleep(0.001)


def test_what_is_there_then_what_changes():
    async def scenario(api, watch, changes):
        api.put(NODE, "a", value=1)
        api.put(NODE, "b", value=2)
        api.put(NODE, "boring", value=None)
        await watch.listed.wait()
        assert watch.items == {("", "a"): 1, ("", "b"): 2}
        api.put(NODE, "a", value=3)
        api.put(NODE, "c", value=4)
        api.take(NODE, "b")
        await until(lambda: len(changes) == 5)
        assert changes[2:] == [("a", 1, 3), ("c", None, 4), ("b", 2, None)]

    run(scenario)


def test_what_matters_not_is_no_change():
    async def scenario(api, watch, changes):
        api.put(NODE, "a", value=1)
        await watch.listed.wait()
        api.put(NODE, "a", value=1, heartbeat="later")
        api.put(NODE, "a", value=None)
        await until(lambda: len(changes) == 2)
        assert changes[1] == ("a", 1, None)

    run(scenario)


def test_what_vanished_in_a_gap_is_noticed():
    async def scenario(api, watch, changes):
        for name in "abc":
            api.put(NODE, name, value=1)
        await watch.listed.wait()
        changes.clear()
        api.take(NODE, "b")
        api.put(NODE, "c", value=9)
        api.lose()
        await until(lambda: len(changes) == 2)
        assert sorted(changes) == [("b", 1, None), ("c", 1, 9)]
        assert api.lists == 2

    run(scenario)


def test_an_api_server_that_is_away_is_waited_for():
    async def scenario(api, watch, changes):
        api.away = True
        await asyncio.sleep(0.05)
        assert not watch.listed.is_set()
        api.put(NODE, "a", value=1)
        api.away = False
        await watch.listed.wait()
        assert changes == [("a", None, 1)]

    run(scenario)


def test_some_namespaces_only():
    async def scenario(api, watch, changes):
        for home in ("x", "y", "z"):
            api.put(CLAIM, "claim", home, value=1)
        await watch.listed.wait()
        assert set(watch.items) == {("x", "claim"), ("y", "claim")}
        api.take(CLAIM, "claim", "x")
        api.lose()
        await until(lambda: set(watch.items) == {("y", "claim")})

    run(scenario, kind=CLAIM, namespaces=("x", "y"))
