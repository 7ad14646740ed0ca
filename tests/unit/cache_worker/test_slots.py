"""Slots: what two versions share, what is free, and that nobody's slots are given away."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache_worker.manifest import Builder, MountPoint
from cache_worker.origins import Listing
from cache_worker.slots import Runs, allot, file_paths, free, join, place, without
from cacheop.api.chunk import CHUNK_BYTES, chunk_count
from cacheop.api.errors import StoreError
from cacheop.api.index import Index
from cacheop.api.table import NO_SLOT, Slots

property_test = settings(deadline=None, database=None)
CHUNKS = st.integers(1, 4)
NAMES = st.sampled_from(["a", "b", "c/d", "c/e", "c/f/g", "h", "i/j", "k"])
# path -> (chunks, etag): small models with much in common, so that sharing is tried.
version = st.dictionaries(NAMES, st.tuples(CHUNKS, st.sampled_from("xy")), min_size=1)
runs_of_slots = st.sets(st.integers(0, 30)).map(
    lambda slots: Runs(np.array(sorted(slots), np.int64), np.ones(len(slots), np.int64))
)


def index_of(model: dict[str, tuple[int, str]], uri: str = "s3://b/") -> Index:
    builder = Builder((MountPoint(uri, "/"),))
    sizes = [chunks * CHUNK_BYTES - 1 for chunks, _ in model.values()]
    etags = [etag for _, etag in model.values()]
    builder.add(0, Listing(list(model), sizes, [0] * len(model), etags, [""] * len(model)))
    return Index(b"".join(builder.finish().index_pieces()))


def allotted(index: Index, kept: list[tuple[Index, Slots]], **more) -> Slots:
    return Slots(b"".join(allot(index, kept, **more)))


def slots_by_path(index: Index, slots: Slots) -> dict[str, range]:
    found = {}
    for row in range(index.rows):
        if index.is_directory(row):
            assert slots.first_slot(row) == NO_SLOT
        else:
            first = slots.first_slot(row)
            found[index.path(row)] = range(first, first + chunk_count(index.size(row)))
    return found


@property_test
@given(st.lists(version, min_size=1, max_size=5), st.integers(1, 3))
def test_versions_share_what_is_the_same_and_nothing_else(models, keep) -> None:
    kept: list[tuple[dict, Index, Slots]] = []
    for model in models:
        index = index_of(model)
        slots = allotted(index, [(i, s) for _, i, s in kept], capacity=200)
        mine = slots_by_path(index, slots)
        owners = {slot: path for path, run in mine.items() for slot in run}
        assert len(owners) == sum(len(run) for run in mine.values())
        for other_model, other_index, other_slots in kept:
            for path, run in slots_by_path(other_index, other_slots).items():
                if model.get(path) == other_model[path]:
                    assert mine[path] == run
                else:
                    assert not owners.keys() & set(run)
        for slot, path in owners.items():
            row = slots.row_of_slot(slot)
            assert row is not None
            assert index.path(row) == path
        kept = [*kept, (model, index, slots)][-keep:]


def test_a_first_version_has_its_slots_from_the_start() -> None:
    index = index_of({"a": (2, "x"), "b": (1, "x"), "c/d": (3, "x")})
    runs = sorted(slots_by_path(index, allotted(index, [])).values(), key=lambda run: run.start)
    assert [slot for run in runs for slot in run] == list(range(6))


def test_the_same_key_of_another_bucket_shares_nothing() -> None:
    model = {"a": (1, "x")}
    one, two = index_of(model), index_of(model, "s3://other/")
    first = allotted(one, [])
    assert allotted(two, [(one, first)]).first_slot(0) != first.first_slot(0)


def test_gaps_are_filled_before_the_table_grows() -> None:
    old = index_of({"a": (1, "x"), "b": (3, "x"), "c": (1, "x"), "d": (1, "x")})
    old_slots = allotted(old, [])
    middle = index_of({"c": (1, "x"), "d": (1, "x")})
    kept = [(middle, allotted(middle, [(old, old_slots)]))]
    assert slots_by_path(*kept[0]) == {
        path: run for path, run in slots_by_path(old, old_slots).items() if path in "cd"
    }
    new = index_of({"c": (1, "x"), "e": (1, "y"), "f": (1, "y"), "g": (1, "y"), "h": (1, "y")})
    highest = max(run.stop for run in slots_by_path(old, old_slots).values())
    assert max(run.stop for run in slots_by_path(new, allotted(new, kept)).values()) <= highest


def test_a_full_table_is_an_error() -> None:
    index = index_of({"a": (2, "x"), "b": (1, "x")})
    allotted(index, [], capacity=3)
    for model in ({"a": (4, "x")}, {"a": (2, "x"), "b": (1, "x"), "h": (1, "x")}):
        with pytest.raises(StoreError, match="chunk table is full"):
            allotted(index_of(model), [], capacity=3)


def test_paths_of_all_files() -> None:
    model = dict.fromkeys(("a", "b/c", "b/d/e", "b.f", "g/h/i/j"), (1, "x"))
    index = index_of(model)
    rows = [row for row in range(index.rows) if not index.is_directory(row)]
    assert file_paths(index).to_pylist() == [index.path(row).encode() for row in rows]


def as_set(runs: Runs) -> set[int]:
    pairs = zip(runs.first.tolist(), runs.count.tolist(), strict=True)
    return {slot for first, count in pairs for slot in range(first, first + count)}


@property_test
@given(runs_of_slots, runs_of_slots)
def test_runs_are_sets(one, two) -> None:
    both = join([one, two])
    assert as_set(both) == as_set(one) | as_set(two)
    assert (both.first[1:] > (both.first + both.count)[:-1]).all()
    assert as_set(free(both, 40)) == set(range(40)) - as_set(both)
    assert as_set(without(join([one]), join([two]))) == as_set(one) - as_set(two)


@property_test
@given(runs_of_slots, st.lists(CHUNKS, max_size=12))
def test_places_are_free_and_disjoint(taken, counts) -> None:
    gaps = free(join([taken]), 100)
    first = place(np.array(counts, np.int64), gaps)
    used = [
        slot
        for start, count in zip(first.tolist(), counts, strict=True)
        for slot in range(start, start + count)
    ]
    assert len(set(used)) == len(used)
    assert set(used) <= as_set(gaps)
