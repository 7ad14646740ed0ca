"""Members in a real Redis that is killed, emptied, flushed, stopped and refuses."""

import asyncio
import time
from dataclasses import replace

import pytest

from cache_worker.cluster.view import Member
from cache_worker.members import resp
from cache_worker.members.facts import to_entry
from cache_worker.members.redis import RedisMembers
from tests.fakes.running_members import RunningMembers
from tests.node.members.conftest import PASSWORD, PREFIX, USER

pytestmark = pytest.mark.node

HOURS = 3600.0
WHOLE = 8.0
"""Seconds until a new keeper and new nodes have found each other, at most."""


def as_user(redis, *words):
    return redis.cli(*words, user=USER, password=PASSWORD)


def until_user(redis, seconds=10):
    deadline = time.monotonic() + seconds
    while as_user(redis, "PING") != "PONG":
        assert time.monotonic() < deadline, redis.cli("ACL", "LIST")
        time.sleep(0.02)


def test_the_user_reaches_its_own_prefix_and_nothing_else(redis, keeper):
    until_user(redis)
    redis.cli("HSET", "cacheop:ns/other:members", "n0", "x")
    assert as_user(redis, "HSET", f"{PREFIX}members", "n0", "x") == "1"
    assert as_user(redis, "HGETALL", f"{PREFIX}members").split() == ["n0", "x"]
    assert as_user(redis, "INCR", f"{PREFIX}joined") == "1"
    refused = [
        ("HGETALL", "cacheop:ns/other:members"),
        ("HSET", "cacheop:ns/data2:members", "n0", "y"),
        ("INCR", "joined"),
        ("KEYS", "*"),
        ("SCAN", "0"),
        ("EVAL", "return 1", "0"),
        ("DEL", f"{PREFIX}members"),
        ("FLUSHALL",),
        ("CONFIG", "GET", "requirepass"),
        ("ACL", "LIST"),
        ("PUBLISH", f"{PREFIX}x", "y"),
        ("SELECT", "1"),
    ]
    for words in refused:
        assert "NOPERM" in as_user(redis, *words), words
    assert "NOAUTH" in redis.cli("PING", user=USER, password="guessed")


def test_members_find_each_other_and_one_who_joins_is_seen_within_two_seconds(
    redis, keeper, with_nodes, measured
):
    async def test(nodes):
        nodes.start(0, 1)
        await nodes.agree(WHOLE)
        (late,) = nodes.start(2)
        measured(f"a joiner is seen by all after {await nodes.agree(2):.2f} s")
        views = [node.members.view.members for node in nodes.running.values()]
        await late.until(lambda: late.members.view.members == views[0], 2)
        joined = {member.node: member.joined for member in late.members.view.members}
        assert joined["n2"] > max(joined["n0"], joined["n1"]) > 0

    with_nodes(test)


def test_a_killed_one_is_gone_after_four_to_six_seconds(redis, keeper, with_nodes, measured):
    async def test(nodes):
        nodes.start(0, 1, 2)
        await nodes.agree(WHOLE)
        await nodes.kill(2)
        nodes.clear_views()
        seconds = await nodes.agree(7)
        measured(f"gone after {seconds:.2f} s")
        assert 3.0 <= seconds <= 6.5
        assert nodes.changes() == 2

    with_nodes(test)


def test_draining_and_versions_are_seen_within_two_seconds(redis, keeper, with_nodes, measured):
    async def test(nodes):
        one, other = nodes.start(0, 1)
        await nodes.agree(WHOLE)
        for facts in ({"draining": True}, {"version": "v2", "generation": 4}):
            one.members.announce(replace(one.members.me, **facts))
            told = one.members.me
            seconds = await other.until(
                lambda told=told: other.members.view.member("n0") == told, 2
            )
            measured(f"{facts} seen after {seconds:.2f} s")

    with_nodes(test)


def test_redis_killed_and_restarted_without_data_or_user(
    redis, keeper, with_nodes, measured, caplog
):
    async def test(nodes):
        nodes.start(0, 1, 2)
        await nodes.agree(WHOLE)
        joined = {member.joined for member in nodes.running["n0"].members.view.members}
        nodes.clear_views()
        await asyncio.to_thread(redis.kill)
        await asyncio.sleep(8)
        assert nodes.changes() == 0
        await asyncio.to_thread(redis.start)
        started = time.monotonic()
        while len((await asyncio.to_thread(redis.cli, "HKEYS", f"{PREFIX}members")).split()) < 3:
            assert time.monotonic() - started < 10
            await asyncio.sleep(0.05)
        measured(f"all had announced themselves again after {time.monotonic() - started:.2f} s")
        await asyncio.sleep(7)
        assert nodes.changes() == 0
        (late,) = nodes.start(3)
        await nodes.agree(2)
        assert late.members.me.joined > max(joined)  # though the counter began anew
        assert await asyncio.to_thread(as_user, redis, "INCR", f"{PREFIX}joined") == "2"

    with_nodes(test)
    away = [r for r in caplog.records if "The last view stays" in r.message]
    assert len(away) <= 3 * 4  # three nodes; a line for each reason, not for each try


def test_redis_flushed(redis, keeper, with_nodes):
    async def test(nodes):
        nodes.start(0, 1, 2)
        await nodes.agree(WHOLE)
        nodes.clear_views()
        for _ in range(3):
            await asyncio.to_thread(redis.cli, "FLUSHALL")
            await asyncio.sleep(3.3)
        assert nodes.changes() == 0

    with_nodes(test)


@pytest.mark.parametrize("seconds", [0.7, 6])
def test_redis_stopped_as_when_it_swaps(redis, keeper, with_nodes, measured, seconds):
    async def test(nodes):
        nodes.start(0, 1, 2)
        await nodes.agree(WHOLE)
        nodes.clear_views()
        redis.stop_clock()
        await asyncio.sleep(seconds)
        redis.go_on()
        await asyncio.sleep(6.5)
        assert nodes.changes() == 0
        nodes.start(3)
        measured(f"healed: one who joins is seen after {await nodes.agree(2):.2f} s")

    with_nodes(test)


def test_the_user_is_deleted_under_way(redis, keeper, with_nodes, measured):
    async def test(nodes):
        nodes.start(0, 1)
        await nodes.agree(WHOLE)
        nodes.clear_views()
        await asyncio.to_thread(redis.cli, "ACL", "DELUSER", USER)
        await asyncio.sleep(0.1)
        started = time.monotonic()
        nodes.start(2)
        await nodes.agree(10)
        measured(f"healed after {time.monotonic() - started:.2f} s")
        for node in ("n0", "n1"):
            (view,) = nodes.running[node].views
            assert [member.node for member in view.members] == ["n0", "n1", "n2"]

    with_nodes(test)


def test_a_redis_that_takes_no_writes_takes_nobody_out_of_the_view(redis, keeper, with_nodes):
    """Out of memory, or its disk is full: beats can be read, but nobody can leave one."""

    async def test(nodes):
        nodes.start(0, 1)
        await nodes.agree(WHOLE)
        nodes.clear_views()
        await asyncio.to_thread(redis.cli, "CONFIG", "SET", "maxmemory", "1")
        await asyncio.sleep(7)
        assert nodes.changes() == 0
        await asyncio.to_thread(redis.cli, "CONFIG", "SET", "maxmemory", "0")
        nodes.start(2)
        await nodes.agree(4)

    with_nodes(test)


def test_a_new_password_needs_no_restart(redis, keeper, with_nodes, place):
    async def test(nodes):
        nodes.start(0, 1)
        await nodes.agree(WHOLE)
        place.server.password_file.write_text("another one")
        await asyncio.sleep(5.5)
        assert "NOAUTH" in await asyncio.to_thread(as_user, redis, "PING")
        nodes.clear_views()
        await asyncio.to_thread(redis.cli, "CLIENT", "KILL", "USER", USER)
        nodes.start(2)
        await nodes.agree(5)

    with_nodes(test)


def test_without_a_redis_at_the_start_we_are_alone_until_it_comes(redis, keeper, with_nodes):
    async def test(nodes):
        await asyncio.to_thread(redis.kill)
        one, other = nodes.start(0, 1)
        await asyncio.sleep(1)
        assert (one.nodes(), other.nodes()) == (["n0"], ["n1"])
        await asyncio.to_thread(redis.start)
        await nodes.agree(10)

    with_nodes(test)


def test_a_clock_that_is_hours_off_changes_nothing(redis, keeper, place, with_nodes):
    async def test(nodes):
        nodes.start(0)
        for node, skew in (("n1", 7 * HOURS), ("n2", -3 * HOURS)):
            me = Member(node, "127.0.0.1:7100", zone="z")
            members = RedisMembers(place, me, clock=lambda skew=skew: time.monotonic() + skew)
            nodes.running[node] = RunningMembers(members)
        await nodes.agree(WHOLE)
        nodes.clear_views()
        await asyncio.sleep(6)
        assert nodes.changes() == 0
        await nodes.kill(1)
        assert 3.0 <= await nodes.agree(7) <= 6.5

    with_nodes(test)


def test_garbage_in_the_hash_is_refused_and_said_once(redis, keeper, with_nodes, caplog):
    async def test(nodes):
        (one,) = nodes.start(0)
        await one.until(lambda: one.members.me.joined, WHOLE)
        key = f"{PREFIX}members"
        old = to_entry(Member("old", "127.0.0.1:1"), 1).decode()
        future = to_entry(Member("new", "127.0.0.1:9"), 2**62).decode()
        for node, value in (
            ("g0", "not json"),
            ("g1", "[" * 5000),
            ("g2", '{"node": "n9"}'),
            ("g3", "x" * 100_000),
            ("bad\nname", "{}"),
            ("n0", "not us"),
            ("old", old),
            ("new", future.replace("{", '{"colour": "blue", ', 1)),
        ):
            assert await asyncio.to_thread(redis.cli, "HSET", key, node, value) in {"0", "1"}
        await one.until(lambda: one.nodes() == ["n0", "new"], 2)
        await one.until(lambda: one.nodes() == ["n0"], 6)
        await asyncio.sleep(2)
        left = await asyncio.to_thread(redis.cli, "HKEYS", key)
        assert "old" not in left.split()
        assert "g0" in left.split()  # another release may know what to do with it

    with_nodes(test)
    for node in ("g0", "g1", "g2", "g3", r"bad\nname"):
        said = [r for r in caplog.records if f"entry of '{node}'" in r.getMessage()]
        assert len(said) == 1, node


def test_two_hundred_members(redis, keeper, place, with_nodes, measured):
    """What a round costs us: the CPU of ours, and how long Redis lets us wait."""

    async def test(nodes):
        (one,) = nodes.start(0)
        await one.until(lambda: one.members.me.joined, WHOLE)
        connection = await resp.Connection.open(place.server)
        task = asyncio.create_task(others(connection))
        await one.until(lambda: len(one.nodes()) == 200, 3)
        epoch = one.members.view.epoch
        members = RedisMembers(place, replace(one.members.me, node="n200"))
        own = await resp.Connection.open(place.server)
        await members._join(own)
        wall, cpu = time.perf_counter(), time.process_time()
        for k in range(20):
            await members._round(own, reconnected=k == 0)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        measured(f"a round of 200 members: {wall * 50:.1f} ms, of it our CPU {cpu * 50:.1f} ms")
        assert len(members.view.members) == 201
        assert wall / 20 < 0.2
        own.close()
        await asyncio.sleep(3)
        assert len(one.nodes()) == 201
        assert one.members.view.epoch <= epoch + 2
        task.cancel()
        connection.close()

    async def others(connection):
        beat = resp.milliseconds((await connection.call(("TIME",)))[0])
        while True:
            beat += 1000
            entries = [
                word
                for k in range(1, 200)
                for word in (f"n{k}", to_entry(Member(f"n{k}", f"10.0.0.{k}:7070"), beat))
            ]
            await connection.call(("HSET", f"{PREFIX}members", *entries))
            await asyncio.sleep(1)

    with_nodes(test)
