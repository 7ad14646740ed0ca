"""A fixed list: what is presumed and learnt. Who is gone when is in tests/node/members."""

import asyncio
from dataclasses import replace

import pytest

from cache_worker.members.static import StaticMembers, learnt, presumed
from tests.fakes.hello_cluster import LISTED, HelloCluster
from tests.fakes.running_members import RunningMembers


def test_all_presume_the_same_before_anybody_answered():
    views = [
        StaticMembers(LISTED, replace(me, capacity_bytes=5), HelloCluster().ask).view
        for me in LISTED
    ]
    assert views[0].members == views[1].members == views[2].members
    assert [member.capacity_bytes for member in views[0].members] == [5, 5, 5]


def test_facts_are_learnt_and_the_views_are_the_same():
    async def run():
        cluster = HelloCluster()
        running = [cluster.start(k) for k in range(3)]
        for node in running:
            await node.until(
                lambda node=node: all(m.instance and m.joined for m in node.members.view.members), 3
            )
        views = [node.members.view.members for node in running]
        assert views[0] == views[1] == views[2]
        assert [member.capacity_bytes for member in views[0]] == [10, 11, 12]
        for node in running:
            await node.stop()

    asyncio.run(run())


def test_who_comes_later_joined_later():
    async def run():
        cluster = HelloCluster()
        early = cluster.start(0)
        await early.until(lambda: early.members.me.joined, 3)
        late = cluster.start(1)
        await late.until(lambda: late.members.me.joined, 3)
        assert late.members.me.joined > early.members.me.joined
        late.members.announce(replace(LISTED[1], version="v"))
        assert late.members.me.joined > early.members.me.joined
        await early.stop()
        await late.stop()

    asyncio.run(run())


def test_where_a_member_is_found_is_the_lists_to_say():
    meta = {"node": "n1", "address": "evil:1", "future": 1}
    assert learnt(LISTED[1], meta) == LISTED[1]
    assert learnt(LISTED[1], {**meta, "zone": "other"}).zone == "other"
    with pytest.raises(ValueError):
        learnt(LISTED[1], {})


def test_a_stopped_process_does_not_take_all_others_for_dead():
    async def run():
        skipped = 0.0
        loop = asyncio.get_running_loop()
        cluster = HelloCluster()
        other = cluster.start(1)
        me = replace(LISTED[0], capacity_bytes=1)
        one = RunningMembers(
            StaticMembers(LISTED[:2], me, cluster.ask, clock=lambda: loop.time() + skipped)
        )
        await one.until(lambda: one.members.view.member("n1").instance, 3)
        answer = cluster.nodes.pop("n1")
        skipped = 600.0
        await asyncio.sleep(1.2)
        assert one.nodes() == ["n0", "n1"]
        cluster.nodes["n1"] = answer
        await one.stop()
        await other.stop()

    asyncio.run(run())


def test_presumed_is_as_big_as_we():
    assert presumed(LISTED[1], replace(LISTED[0], capacity_bytes=77)).capacity_bytes == 77
