"""Whom a node asks for a chunk, and what it makes of the answers."""

import asyncio
from dataclasses import replace

import pytest

from cache_worker.cluster.route import HOPS_MAX, Asked, Flight
from cache_worker.peers.errors import PeerBadBytes, PeerUnavailable
from cacheop.api.errors import NotFoundError, OriginChanged, OriginError, SuspendedError
from tests.fakes.peers_in_memory import ClusterOf

DATA = b"x" * 100


async def right():
    return DATA


def raises(error):
    async def answer():
        raise error

    return answer


def later(seconds):
    async def answer():
        await asyncio.sleep(seconds)
        return DATA

    return answer


def run(test):
    async def with_deadline():
        async with asyncio.timeout(30):
            await test()

    asyncio.run(with_deadline())


def fetch(one, row, asked=None, flight=None, **how):
    return one.cluster.fetch(one.version, row, 0, asked, flight or Flight(), **how)


def test_the_owner_gives():
    async def test():
        async with ClusterOf("d") as one:
            row, flight = one.row_of("a", "b", "c"), Flight()
            one.peers.give["a"] = right
            found = await fetch(one, row, flight=flight)
            assert bytes(found.data) == DATA
            assert [(a.node, a.hops) for a in one.peers.asked] == [("a", 1)]
            assert flight.hops == 1

    run(test)


def test_of_ours_nobody_is_asked_while_nobody_else_can_have_it():
    async def test():
        async with ClusterOf("a") as one:
            row, flight = one.row_of("a", "b", "c"), Flight()
            one.cluster.adopted("v1", [])
            found = await fetch(one, row, flight=flight)
            assert found.data is None
            assert one.peers.asked == []
            assert flight.hops > HOPS_MAX
            one.peers.copy["c"] = right  # we had it once, and dropped it
            found = await fetch(one, row, others=2)
            assert bytes(found.data) == DATA
            assert sorted(one.peers.copies()) == ["b", "c"]

    run(test)


@pytest.mark.parametrize(
    "change",
    [
        lambda all_: [all_["b"], all_["c"]],
        lambda all_: [all_["b"], all_["c"], replace(all_["d"], draining=True)],
        lambda all_: [all_["b"], all_["c"], replace(all_["d"], capacity_bytes=1)],
    ],
    ids=["left", "drains", "is smaller"],
)
def test_when_chunks_got_other_owners_copies_are_asked_for(change):
    async def test():
        async with ClusterOf("a") as one:
            one.cluster.adopted("v1", [])
            one.members.now(*change(one.all))
            row = one.row_of("a", "b", "c")
            one.peers.copy["c"] = right
            assert bytes((await fetch(one, row)).data) == DATA

    run(test)


def test_a_new_version_that_shares_files_is_as_unsettled_as_the_old_one():
    async def test():
        async with ClusterOf("a") as one:
            one.cluster.adopted("v1", ["v0"])  # v0 was here before we know who came and went
            await fetch(one, one.row_of("a", "b", "c"))
            assert sorted(one.peers.copies()) == ["b", "c"]

    run(test)


@pytest.mark.parametrize("error", [PeerUnavailable("gone"), NotFoundError("no such version")])
def test_when_the_owner_refuses_the_next_one_acts(error):
    async def test():
        async with ClusterOf("d") as one:
            row = one.row_of("a", "b", "c")
            one.peers.give |= {"a": raises(error), "b": right}
            assert bytes((await fetch(one, row)).data) == DATA
            assert [(a.node, a.without) for a in one.peers.asked] == [("a", ()), ("b", ("a",))]

    run(test)


def test_bad_bytes_ban_the_peer_and_have_it_look_at_its_disk():
    async def test():
        async with ClusterOf("d") as one:
            row = one.row_of("a", "b", "c")
            one.peers.give |= {"a": raises(PeerBadBytes("rotten")), "b": right}
            assert bytes((await fetch(one, row)).data) == DATA
            assert bytes((await fetch(one, row)).data) == DATA
            assert one.peers.owners() == ["a", "b", "b"]
            assert one.cluster.bans["bad_bytes"] == 1
            await asyncio.sleep(0)
            assert one.peers.questions == [
                ("a", "verify", {"version": "v1", "row": row, "chunk": 0})
            ]

    run(test)


@pytest.mark.parametrize("kind", [OriginChanged, SuspendedError])
def test_what_the_owner_may_not_read_comes_from_a_copy_or_is_said(kind):
    async def test():
        async with ClusterOf("d") as one:
            row = one.row_of("a", "b", "c")
            one.peers.give["a"] = raises(kind("no"))
            with pytest.raises(kind):
                await fetch(one, row)
            assert one.peers.owners() == ["a"]  # nobody reads the origin in its place
            one.peers.copy["c"] = right
            assert bytes((await fetch(one, row)).data) == DATA

    run(test)


def test_an_owner_whose_origin_is_broken_is_not_believed():
    async def test():
        async with ClusterOf("d") as one:
            row, flight = one.row_of("a", "b", "c"), Flight()
            one.peers.give["a"] = raises(OriginError("500"))
            found = await fetch(one, row, flight=flight)
            assert found.data is None
            assert not found.hedged
            assert flight.hops > HOPS_MAX

    run(test)


def test_a_late_owner_has_copies_asked_and_the_first_answer_wins():
    async def test():
        async with ClusterOf("d") as one:
            row = one.row_of("a", "b", "c")
            one.peers.give["a"] = later(20)
            one.peers.copy["b"] = right
            assert bytes((await fetch(one, row)).data) == DATA
            await asyncio.sleep(0)
            assert one.peers.cancelled == ["a"]

    run(test)


def test_an_owner_much_slower_than_others_is_outrun_by_the_next_and_that_is_counted():
    async def test():
        async with ClusterOf("b") as one:
            for _ in range(20):
                one.cluster.health.answered(asyncio.get_running_loop().time(), "c", 0.001)
            row = one.row_of("a", "b", "c")
            one.peers.give["a"] = later(20)
            found = await fetch(one, row)
            assert found.data is None
            assert found.hedged  # we are the next one
            assert one.peers.owners() == ["a"]

    run(test)


def test_who_left_is_not_waited_for():
    async def test():
        async with ClusterOf("d") as one:
            row = one.row_of("a", "b", "c")
            one.peers.give |= {"a": later(20), "b": right}
            fetching = asyncio.create_task(fetch(one, row))
            await asyncio.sleep(0.05)
            one.members.now(one.all["b"], one.all["c"])
            assert bytes((await fetching).data) == DATA
            assert one.peers.cancelled == ["a"]

    run(test)


def test_a_request_that_was_passed_on_is_not_passed_on_again():
    async def test():
        async with ClusterOf("d") as one:
            row = one.row_of("a", "b", "c")
            one.peers.give |= dict.fromkeys("abc", right)
            flight = Flight()
            found = await fetch(one, row, Asked("b", hops=1), flight)
            assert bytes(found.data) == DATA
            assert (flight.hops, one.peers.asked[-1].hops) == (2, 2)
            one.peers.asked.clear()
            assert (await fetch(one, row, Asked("b", hops=HOPS_MAX))).data is None
            assert one.peers.owners() == []

    run(test)


def test_who_drains_gives_what_it_offers():
    async def test():
        async with ClusterOf("d") as one:
            row = one.row_of("a", "b", "c")
            one.peers.copy["c"] = right
            assert bytes((await fetch(one, row, Asked("c", holds=True))).data) == DATA
            assert one.peers.copies() == ["c"]

    run(test)


def test_flights_are_joined_only_by_who_has_come_less_far():
    reader, once, twice = None, Asked("x", hops=1), Asked("x", hops=2)
    asks_owner, passed_on, reads_origin = Flight(1), Flight(2), Flight()
    assert all(f.may_be_joined(reader) for f in (asks_owner, passed_on, reads_origin))
    assert [f.may_be_joined(once) for f in (asks_owner, passed_on, reads_origin)] == [
        False, True, True,
    ]  # fmt: skip
    assert [f.may_be_joined(twice) for f in (asks_owner, passed_on, reads_origin)] == [
        False, False, True,
    ]  # fmt: skip


def test_shares_add_up_to_the_whole_and_stay_as_they_were():
    async def test():
        async with ClusterOf("a") as one, ClusterOf("b") as two, ClusterOf("c", "abcd") as three:
            nodes = [one, two, three, ClusterOf("d")]
            shares = [node.cluster.share(node.version, 1) for node in nodes]
            twice = [node.cluster.share(node.version, 2) for node in nodes]
            one.members.now()  # all others left
            for row in range(300):
                assert sum(share(row, 0) for share in shares) == 1
                assert sum(share(row, 0) for share in twice) == 2

    run(test)


def test_two_nodes_that_each_take_the_other_for_the_owner_do_not_wait_for_each_other():
    """Their reads of one chunk meet half-way: each asks the other, and both get it."""

    async def test():
        async with ClusterOf("a", "ab") as one, ClusterOf("b", "ab") as two:
            # As before capacities are heard: each thinks that the other one is larger.
            one.members.now(replace(one.all["b"], capacity_bytes=1 << 40))
            two.members.now(replace(two.all["a"], capacity_bytes=1 << 40))
            row = next(
                r
                for r in range(1000)
                if one.cluster.owner(one.version, r, 0).node == "b"
                and two.cluster.owner(two.version, r, 0).node == "a"
            )
            flights = {"a": Flight(), "b": Flight()}
            nodes = {"a": one, "b": two}
            origin = []

            def answers(node, asker):
                async def answer():
                    await asyncio.sleep(0.01)
                    asked = Asked(asker)
                    assert not flights[node].may_be_joined(asked)
                    found = await fetch(nodes[node], row, asked)
                    if found.data is None:
                        origin.append(node)
                        return DATA
                    return bytes(found.data)

                return answer

            one.peers.give["b"] = answers("b", "a")
            two.peers.give["a"] = answers("a", "b")
            got = await asyncio.gather(
                fetch(one, row, flight=flights["a"]), fetch(two, row, flight=flights["b"])
            )
            assert [bytes(found.data) for found in got] == [DATA, DATA]
            assert sorted(origin) == ["a", "b"]

    run(test)
