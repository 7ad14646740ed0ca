"""Exact properties for any cluster; statistical ones for fixed clusters, so they never flicker."""

import math
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_64_digest, xxh3_64_intdigest, xxh3_128_digest

from cache_worker.cluster.placement import Seats, keeper, rank, seed_of, weight_of
from cache_worker.cluster.view import Member

TIB = 1 << 40
SIGMAS = 5

contents = st.binary(min_size=16, max_size=16)
chunks = st.integers(0, 2**32)
members = st.builds(
    Member,
    node=st.text(max_size=8),
    capacity_bytes=st.sampled_from([0, 1, 40, TIB, TIB + 1, 3 * TIB]) | st.integers(0, 1 << 50),
    draining=st.booleans(),
)
clusters = st.lists(members, min_size=1, max_size=12, unique_by=lambda m: m.node).map(tuple)


def some_chunks(count):
    """Files of 4 chunks."""
    return [(xxh3_128_digest(b"%d" % (i // 4)), i % 4) for i in range(count)]


def equals(count, capacity_bytes=TIB):
    return [Member(f"node-{i}", capacity_bytes=capacity_bytes) for i in range(count)]


@given(clusters, contents, chunks, st.booleans(), st.randoms())
def test_the_order_is_a_permutation_that_depends_on_the_members_alone(
    cluster, content, chunk, draining, random
):
    order = Seats(cluster).order(content, chunk, len(cluster) + 1, draining=draining)
    assert sorted(order) == sorted(m for m in cluster if draining or not m.draining)
    shuffled = random.sample(cluster, len(cluster))
    # What a member is beside its name, weight and draining changes nothing.
    elsewhere = [replace(m, address="a", zone="z", instance="i", joined=7) for m in shuffled]
    again = Seats(elsewhere).order(content, chunk, len(cluster), draining=draining)
    assert [m.node for m in again] == [m.node for m in order]


@given(clusters, contents, chunks, st.integers(0, 13))
def test_the_order_begins_with_the_owner_and_longer_ones_only_add(cluster, content, chunk, count):
    seats = Seats(cluster)
    order = seats.order(content, chunk, 12)
    assert seats.order(content, chunk, count) == order[:count]
    assert seats.owner(content, chunk) == (order[0] if order else None)
    for replicas in range(1, 13):
        mine = {m.node for m in cluster if seats.is_mine(m.node, content, chunk, replicas)}
        assert mine == {m.node for m in order[:replicas]}


@given(clusters, contents, chunks)
def test_the_order_is_that_of_the_scores(cluster, content, chunk):
    place = xxh3_64_digest(content, chunk)
    drawn = [
        (xxh3_64_intdigest(place, seed_of(m.node)), weight_of(m.capacity_bytes), m) for m in cluster
    ]
    wanted = tuple(m for _, _, m in sorted(drawn, key=rank))
    assert Seats(cluster).order(content, chunk, 12, draining=True) == wanted


@given(clusters, contents, chunks, st.data())
def test_who_leaves_or_drains_moves_only_its_own(cluster, content, chunk, data):
    """Read from right to left, the same for who joins."""
    leaver = data.draw(st.sampled_from(cluster))
    rest = [m for m in cluster if m is not leaver]
    before, after = (Seats(some).order(content, chunk, 12) for some in (cluster, rest))
    assert after == tuple(m for m in before if m is not leaver)
    drained = [*rest, replace(leaver, draining=True)]
    assert Seats(drained).order(content, chunk, 12) == after
    # Those who drain are still found where they were.
    with_drained = Seats(drained).order(content, chunk, 12, draining=True)
    with_leaver = Seats(cluster).order(content, chunk, 12, draining=True)
    assert [m.node for m in with_drained] == [m.node for m in with_leaver]


def test_when_all_drain_nobody_owns():
    seats = Seats([Member("a", draining=True)])
    assert seats.owner(bytes(16), 0) is None
    assert not seats.is_mine("a", bytes(16), 0)
    assert seats.order(bytes(16), 0, 3) == ()
    assert keeper("manifest", [Member("a", draining=True)]) is None


def test_placement_is_the_same_in_every_release():
    """Nodes of two releases in one cluster must agree: changing this needs a new peer protocol."""
    seats = Seats([Member("a"), Member("b"), Member("c"), Member("large", capacity_bytes=2)])
    owners = [seats.owner(*place).node for place in some_chunks(10)]
    assert owners == ["a", "large", "a", "large", "a", "large", "large", "b", "large", "c"]
    assert keeper("manifest", equals(5)).node == "node-3"


@pytest.mark.parametrize("count", [2, 7, 40])
def test_equal_members_own_equal_shares(count):
    places = some_chunks(40_000)
    seats = Seats(equals(count))
    owned = Counter(seats.owner(*place).node for place in places)
    mean = len(places) / count
    for member in seats.owning:
        assert abs(owned[member.node] / mean - 1) <= SIGMAS / math.sqrt(mean)


def test_shares_follow_capacities():
    places = some_chunks(60_000)
    seats = Seats(
        Member(f"node-{i}", capacity_bytes=capacity * TIB)
        for i, capacity in enumerate([1, 1, 2, 3, 4, 8, 8])
    )
    owned = Counter(seats.owner(*place).node for place in places)
    for member in seats.owning:
        mean = len(places) * member.capacity_bytes / TIB / 27
        assert abs(owned[member.node] / mean - 1) <= SIGMAS / math.sqrt(mean)


@pytest.mark.parametrize("count", [3, 20])
def test_who_joins_takes_its_share(count):
    places = some_chunks(40_000)
    before, after = Seats(equals(count)), Seats(equals(count + 1))
    moved = [now for p in places if (now := after.owner(*p)) != before.owner(*p)]
    assert {m.node for m in moved} == {f"node-{count}"}
    mean = len(places) / (count + 1)
    assert abs(len(moved) / mean - 1) <= SIGMAS / math.sqrt(mean)


def test_nearly_equal_weights_place_nearly_as_equal_ones():
    """One step of weight moves less than half of a step of the share, here of 8 members."""
    places = some_chunks(20_000)
    even = Seats(equals(8))
    uneven = Seats(
        [*equals(4), *(replace(m, capacity_bytes=17 * TIB // 16) for m in equals(8)[4:])]
    )
    assert len(uneven.classes) == 2
    moved = sum(even.owner(*p).node != uneven.owner(*p).node for p in places)
    assert 0 < moved / len(places) < 1 / 32


def test_a_slightly_other_disk_changes_nothing():
    assert weight_of(TIB) == weight_of(int(TIB * 1.02)) == weight_of(int(TIB * 0.99)) == TIB
    assert weight_of(int(TIB * 1.04)) > TIB


@given(st.integers(0, 1 << 60))
def test_a_weight_is_near_its_capacity(capacity_bytes):
    weight = weight_of(capacity_bytes)
    assert weight >= 1
    assert abs(weight - capacity_bytes) <= max(1, capacity_bytes / 32)
    assert weight_of(weight) == weight
    assert weight_of(capacity_bytes + 1) >= weight


@given(clusters)
def test_named_things_are_kept_whatever_the_capacities(cluster):
    chosen = keeper("manifest", cluster)
    sizeless = keeper("manifest", [replace(m, capacity_bytes=1) for m in reversed(cluster)])
    assert (chosen and chosen.node) == (sizeless and sizeless.node)
    assert chosen is None or not chosen.draining
    others = [m for m in cluster if m != chosen]
    for gone in others:
        assert keeper("manifest", [m for m in cluster if m != gone]) == chosen


def test_names_are_kept_by_different_members():
    kept = {keeper(f"name-{i}", equals(5)).node for i in range(100)}
    assert kept == {m.node for m in equals(5)}
