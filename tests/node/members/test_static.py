"""A fixed list: who is live, told by who answers."""

import asyncio
from dataclasses import replace

import pytest

from cache_worker.members.facts import to_meta
from tests.fakes.hello_cluster import LISTED, HelloCluster

pytestmark = pytest.mark.node


@pytest.mark.parametrize("how", ["refused", "silent"])
def test_who_does_not_answer_is_gone_after_four_seconds_and_back_at_once(how):
    async def run():
        cluster = HelloCluster()
        one, other = cluster.start(0), cluster.start(1)
        answer = cluster.nodes["n1"]
        await one.until(lambda: one.members.view.member("n2") is None, 7)
        assert one.nodes() == ["n0", "n1"]
        if how == "refused":
            del cluster.nodes["n1"]
        else:
            cluster.silent.add("n1")
        gone = await one.until(lambda: one.nodes() == ["n0"], 8)
        assert 3.0 <= gone <= 6.5
        cluster.silent.clear()
        cluster.nodes["n1"] = answer
        assert await one.until(lambda: one.nodes() == ["n0", "n1"], 4) < 2.5
        await one.stop()
        await other.stop()

    asyncio.run(run())


def test_draining_and_versions_are_seen_within_two_seconds():
    async def run():
        cluster = HelloCluster()
        one, other = cluster.start(0), cluster.start(1)
        await one.until(lambda: one.members.view.member("n1").instance, 3)
        epoch = one.members.view.epoch
        told = replace(other.members.me, draining=True, version="v2", generation=3)
        other.members.announce(told)
        await one.until(lambda: one.members.view.member("n1") == told, 2)
        assert one.members.view.epoch == epoch + 1 == one.views[-1].epoch
        await one.stop()
        await other.stop()

    asyncio.run(run())


def test_who_answers_under_another_name_is_not_the_member(caplog):
    async def run():
        cluster = HelloCluster()
        cluster.nodes["n1"] = lambda: to_meta(LISTED[2])
        cluster.nodes["n2"] = lambda: {"node": "n2", "capacity_bytes": "much"}
        one = cluster.start(0)
        await one.until(lambda: one.nodes() == ["n0"], 8)
        await one.stop()

    asyncio.run(run())
    assert len([r for r in caplog.records if "refused" in r.message]) == 2  # not one a second
