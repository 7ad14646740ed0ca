import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_64_digest

from cache_worker.cluster import bulk_placement
from cache_worker.cluster.placement import Seats, rank
from cache_worker.cluster.view import Member

contents = st.binary(min_size=16, max_size=16)
chunks = st.integers(0, 2**64 - 1)
files = st.lists(st.tuples(contents, chunks), min_size=1, max_size=40)
members = st.builds(
    Member, node=st.text(max_size=8), capacity_bytes=st.sampled_from([1, 2, 40, 41, 1 << 40])
)
clusters = st.lists(members, min_size=1, max_size=12, unique_by=lambda m: m.node)


def places_of(some):
    content = np.frombuffer(b"".join(c for c, _ in some), np.uint8).reshape(-1, 16)
    return bulk_placement.places(content, np.array([n for _, n in some], np.uint64))


@given(files)
def test_places_are_digests(some):
    wanted = [int.from_bytes(xxh3_64_digest(c, n), "little") for c, n in some]
    assert places_of(some).tolist() == wanted


@given(clusters, files)
def test_owners_are_those_found_one_by_one(cluster, some):
    seats = Seats(cluster)
    owners = [seats.owning[i] for i in bulk_placement.owners(seats, places_of(some))]
    assert owners == [seats.owner(*place) for place in some]


@pytest.mark.parametrize("weights", [[1], [5], [3, 40, 1000]])
def test_owners_are_the_same_across_blocks(weights):
    """More chunks than a block has, and a last block that is not full."""
    cluster = [Member(f"n{i}", capacity_bytes=weights[i % len(weights)]) for i in range(150)]
    seats = Seats(cluster)
    random = np.random.default_rng(5)
    content = random.integers(0, 256, (2_500, 16), np.uint8)
    chunk = np.arange(len(content), dtype=np.uint64) % 7
    owners = bulk_placement.owners(seats, bulk_placement.places(content, chunk))
    assert len(content) > bulk_placement.BLOCK // len(cluster)
    for row in range(len(content)):
        assert seats.owning[owners[row]] == seats.owner(content[row].tobytes(), int(chunk[row]))


@given(st.integers(1 << 62, (1 << 64) - 1), st.integers(-3000, 3000), st.booleans())
def test_scores_too_close_for_numpy_are_ordered_as_one_by_one(number, off, swapped):
    """A hash and the one that scores the same with twice the weight, a few steps away."""
    twice = min((number * number >> 64) + off, (1 << 64) - 1)
    light, heavy = Member("light", capacity_bytes=16), Member("heavy", capacity_bytes=32)
    seats = Seats([light, heavy])
    tops = np.array([[number], [twice]] if not swapped else [[twice], [number]], np.uint64)
    winner = bulk_placement._among_classes(seats, np.zeros((2, 1), np.int64), tops)
    drawn = [(int(tops[0, 0]), 16, light), (int(tops[1, 0]), 32, heavy)]
    assert seats.owning[winner[0]] == min(drawn, key=rank)[2]


def test_nothing_to_place():
    assert bulk_placement.owners(Seats([Member("a")]), np.empty(0, np.uint64)).tolist() == []
