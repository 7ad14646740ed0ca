"""Views and their epochs; what is announced; when a Redis is tried again."""

import asyncio
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from cache_worker.cluster.view import Member, View
from cache_worker.members import open_members
from cache_worker.members.membership import joined_after, next_view
from cache_worker.members.outage import retry_seconds
from cache_worker.members.redis import RedisMembers
from cache_worker.members.settings import Cluster, RedisPlace, RedisServer
from cache_worker.members.static import StaticMembers

ME = Member("n1", "127.0.0.1:1", capacity_bytes=7)


def others(*numbers):
    return [Member(f"n{k}", f"127.0.0.1:{k}") for k in numbers]


async def nobody(member, op, meta, seconds):
    raise ConnectionRefusedError


def test_a_view_is_ordered_by_node_and_we_are_in_it():
    view = next_view(View("n1", ()), ME, others(3, 0, 2))
    assert [member.node for member in view.members] == ["n0", "n1", "n2", "n3"]
    assert view.member("n1") == ME


@given(st.permutations(others(0, 2, 3)), st.integers(0, 100))
def test_the_same_members_are_the_same_view(found, epoch):
    view = next_view(View("n1", (), epoch), ME, others(0, 2, 3))
    assert view.epoch == epoch + 1
    assert next_view(view, ME, found) is view


def test_what_others_say_of_us_does_not_count():
    assert next_view(View("n1", ()), ME, [Member("n1", "elsewhere:1")]).members == (ME,)


def test_each_change_is_another_epoch():
    view = next_view(View("n1", ()), ME, others(0))
    drained = next_view(view, replace(ME, draining=True), others(0))
    gone = next_view(drained, replace(ME, draining=True), [])
    assert [view.epoch, drained.epoch, gone.epoch] == [1, 2, 3]


def test_what_we_announce_is_in_our_view_at_once_whoever_else_is_away():
    members = RedisMembers(RedisPlace(RedisServer("127.0.0.1", 1), "p:"), ME)
    before = members.view
    members.announce(replace(ME, version="ab", joined=99))
    assert members.view.members == (replace(ME, version="ab"),)
    assert members.view.epoch == before.epoch + 1
    members.announce(replace(ME, version="ab"))
    assert members.view.epoch == before.epoch + 1


def test_joined_is_later_than_all_who_were_there():
    assert joined_after([]) == 1
    assert joined_after([replace(ME, joined=4), replace(ME, joined=9)]) == 10


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_a_retry_comes_within_two_seconds_and_not_at_once(failures, chance):
    assert 0.1 <= retry_seconds(failures, chance) <= 2.0


def test_config_says_which_members_there_are():
    place = RedisPlace(RedisServer("127.0.0.1"), "p:")
    assert isinstance(open_members(Cluster(redis=place), ME, nobody), RedisMembers)
    listed = open_members(Cluster(static=tuple(others(0, 1))), ME, nobody)
    assert isinstance(listed, StaticMembers)
    assert [member.node for member in listed.view.members] == ["n0", "n1"]


def test_without_a_cluster_we_are_alone():
    async def run():
        members, views = open_members(Cluster(), ME, nobody), []
        task = asyncio.create_task(members.run(views.append))
        await asyncio.sleep(0.05)
        members.announce(replace(ME, version="v1"))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        assert [view.members for view in views] == [(replace(ME, version="v1"),)]

    asyncio.run(run())
