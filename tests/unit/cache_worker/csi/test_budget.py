"""Shares of a disk, and lists of Datasets in shards."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_worker.csi.budget import LEAST_BYTES, joined, share_bytes


@given(st.integers(0, 1 << 50), st.integers(0, 500))
def test_shares_never_pass_the_whole_but_for_their_floor(disk_bytes, datasets):
    share = share_bytes(disk_bytes, datasets)
    assert share <= 0.8 * disk_bytes + 1
    assert share * datasets <= max(0.8 * disk_bytes, LEAST_BYTES * datasets) + datasets


def shard(generation, uids, shards=2):
    entries = [{"namespace": "n", "name": "d", "uid": uid} for uid in uids]
    return {"generation": generation, "shards": shards, "datasets": entries}


def test_shards_of_one_generation_are_one_list():
    assert joined([shard(3, "ab"), shard(3, "c")]) == (3, frozenset("abc"))
    assert joined([{"generation": 1, "datasets": []}]) == (1, frozenset())


@pytest.mark.parametrize(
    "shards",
    [
        [],
        [shard(3, "ab"), shard(4, "c")],
        [shard(3, "ab")],
        [shard(3, "ab", 1), "x"],
        [{"generation": "3", "datasets": []}],
        [{"generation": 3, "datasets": [{"uid": 1}]}],
        [{"generation": 3}],
    ],
)
def test_what_is_not_whole_is_no_list(shards):
    assert joined(shards) is None
