"""Reading the store without asking: never a byte that is not proved."""

from __future__ import annotations

import os
import struct

import pytest

from cache_worker.mounts.stored import COLD, MISS, StoredVersion
from cache_worker.mounts.tree import ROOT_NODE, Tree, node_of, row_of
from cacheop.api.errors import StoreError
from cacheop.api.index import ROOT
from tests.fakes.stored_version import content, lay_out

BIG = (16 << 20) + 77


@pytest.fixture
def store(tmp_path):
    return lay_out(tmp_path, {"a/big": BIG, "a/small": 5000, "empty": 0, "b/c/d": 1})


@pytest.fixture
def stored(store):
    return StoredVersion(store.root, store.version, [].append)


def read(stored, row, offset, length):
    view = memoryview(bytearray(length))
    count = stored.read(row, offset, view, wait=True)
    return bytes(view[:count]) if count >= 0 else count


def test_absent_present_complete(store, stored):
    row = store.index.resolve("a/big")
    assert read(stored, row, 0, 10) == MISS
    store.fill(row, 1)
    assert read(stored, row, 0, 10) == MISS
    assert read(stored, row, 8 << 20, 1 << 20) == content("a/big", 8 << 20, 1 << 20)
    assert read(stored, row, (8 << 20) - 5, 10) == MISS  # half of it is not there
    store.fill_file(row)
    assert stored.is_complete(row)
    assert read(stored, row, (8 << 20) - 5, 10) == content("a/big", (8 << 20) - 5, 10)
    assert read(stored, row, BIG - 3, 100) == content("a/big", BIG - 3, 3)
    assert read(stored, row, BIG, 100) == b""


def test_what_is_read_without_waiting_is_right_or_cold(store, stored):
    row = store.index.resolve("a/small")
    store.fill_file(row)
    view = memoryview(bytearray(5000))
    assert stored.read(row, 0, view, wait=False) in {5000, COLD}
    if bytes(view) != bytes(5000):
        assert bytes(view) == content("a/small", 0, 5000)


def test_a_dropped_complete_file_is_let_go_and_read_from_its_successor(store, stored):
    row = store.index.resolve("a/small")
    store.fill_file(row)
    assert read(stored, row, 0, 5000) == content("a/small", 0, 5000)
    held = fds_of(store.path(row))
    assert held == 1
    store.drop(row)
    stored.let_go()
    assert fds_of(store.path(row)) == 0
    assert read(stored, row, 0, 5000) == MISS
    store.fill_file(row)
    assert read(stored, row, 0, 5000) == content("a/small", 0, 5000)


def test_punched_chunks_are_a_miss_again(store, stored):
    row = store.index.resolve("a/big")
    store.fill(row, 0)
    assert read(stored, row, 0, 10) == content("a/big", 0, 10)
    store.drop(row, 0)
    assert read(stored, row, 0, 10) == MISS


def test_a_chunk_dropped_and_filled_again_during_the_read_is_no_proof(store):
    row = store.index.resolve("a/big")
    store.fill(row, 0)

    def slow_disk(*arguments):
        count = os.preadv(*arguments)
        store.drop(row, 0)
        store.fill(row, 0)
        return count

    stored = StoredVersion(store.root, store.version, [].append, slow_disk)
    assert read(stored, row, 0, 10) == MISS


def test_a_short_or_lost_file_is_a_miss_and_told_once(store):
    told = []
    stored = StoredVersion(store.root, store.version, told.append)
    row = store.index.resolve("a/small")
    store.fill_file(row)
    os.truncate(store.path(row), 10)
    assert [read(stored, row, 0, 5000) for _ in range(3)] == [MISS] * 3
    assert len(told) == 1
    assert "a/small" in told[0]
    other = StoredVersion(store.root, store.version, told.append)
    store.path(row).unlink()
    assert read(other, row, 0, 5000) == MISS


def test_percent(store, stored):
    row = store.index.resolve("a/big")
    store.fill(row, 0)
    assert stored.cached_percent(row) == 33
    empty = store.index.resolve("empty")
    assert stored.cached_percent(empty) == 0
    store.fill_file(empty)
    assert stored.cached_percent(empty) == 100


def test_missing_chunks(store, stored):
    row = store.index.resolve("a/big")
    assert stored.missing(row, range(3)) == [0, 1, 2]
    store.fill(row, 1)
    assert stored.missing(row, range(3)) == [0, 2]
    assert stored.missing(row, range(0)) == []


def test_a_version_without_files_says_so(tmp_path):
    with pytest.raises(StoreError, match="cannot map"):
        StoredVersion(tmp_path, "0" * 16, [].append)


def test_tree_lists_in_pages_without_state(store):
    tree = Tree(store.index)
    row = store.index.resolve("a")
    whole = tree.listing(row, 0, 1 << 20, plus=False)
    pages, offset = b"", 0
    while page := tree.listing(row, offset, 64, plus=False):
        pages += page
        at = 0
        while at < len(page):
            _, offset, length, _ = struct.unpack_from("<QQII", page, at)
            at += 24 + length + -length % 8
    assert pages == whole
    assert [row_of(node_of(r)) for r in (ROOT, 0, 5)] == [ROOT, 0, 5]
    assert node_of(ROOT) == ROOT_NODE


def fds_of(path) -> int:
    found = 0
    for fd in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{fd}").removesuffix(" (deleted)") == str(path)
        except OSError:
            continue
    return found
