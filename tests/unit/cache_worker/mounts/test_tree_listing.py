"""Entries from columns are the entries that kernel.directory_entry says, at any page size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_worker.manifest import Builder, MountPoint
from cache_worker.mounts import kernel
from cache_worker.mounts.listing import entries
from cache_worker.mounts.tree import Tree, node_of
from cache_worker.origins import Listing
from cacheop.api.index import ROOT, Index

DAY_BEFORE_THE_EPOCH_NS = -86_400 * 10**9 + 7


def make(files: dict[str, tuple[int, int]]) -> Index:
    """An index of path -> (size, mtime_ns)."""
    builder = Builder([MountPoint("s3://test", "/")])
    sizes, mtimes = zip(*files.values(), strict=True)
    count = len(files)
    builder.add(0, Listing(list(files), list(sizes), list(mtimes), ["e"] * count, [""] * count))
    return Index(b"".join(bytes(piece) for piece in builder.finish().index_pieces()))


FILES = {
    "a": (0, 0),
    "b/12345678": (1 << 40, 1_700_000_000_123_456_789),
    "b/" + "x" * 255: (511, DAY_BEFORE_THE_EPOCH_NS),
    "b/grüße": (512, 1),
    "c/d/e": (513, 999_999_999),
}


def one_by_one(index: Index, tree: Tree, row: int, *, plus: bool) -> list[bytes]:
    up = row if row == ROOT else index.parent(row)
    rows = [(row, b"."), (up, b".."), *((r, index.name(r)) for r in index.children(row))]
    return [
        kernel.directory_entry(tree.attributes(at), name, number, plus=plus)
        for number, (at, name) in enumerate(rows, 1)
    ]


@pytest.mark.parametrize("plus", [False, True])
@pytest.mark.parametrize("path", ["", "b", "c", "c/d"])
def test_a_page_is_as_many_entries_as_fit(path: str, plus: bool):
    index = make(FILES)
    tree, row = Tree(index), index.resolve(path)
    assert row is not None
    parts = one_by_one(index, tree, row, plus=plus)
    for offset in range(len(parts) + 1):
        for limit_bytes in range(sum(map(len, parts)) + 9):
            wanted, used = b"", 0
            for part in parts[offset:]:
                used += len(part)
                if used > limit_bytes:
                    break
                wanted += part
            assert tree.listing(row, offset, limit_bytes, plus=plus) == wanted


def test_beyond_the_end_is_nothing():
    tree = Tree(make(FILES))
    assert tree.listing(ROOT, 1 << 40, 4096, plus=True) == b""


@given(
    st.dictionaries(
        st.text("abcxyz0189._- ", min_size=1, max_size=20).filter(lambda n: n not in {".", ".."}),
        st.tuples(st.integers(0, 1 << 50), st.integers(-(1 << 62), 1 << 62)),
        min_size=1,
        max_size=20,
    ),
    st.booleans(),
)
def test_any_names_sizes_and_times(files: dict[str, tuple[int, int]], plus: bool):
    index = make(files)
    parts = one_by_one(index, Tree(index), ROOT, plus=plus)[2:]
    assert entries(index, index.children(ROOT), 3, 1 << 20, plus=plus) == b"".join(parts)
    assert node_of(index.rows - 1) == index.rows + 1


def test_attributes_come_in_the_order_of_rows():
    index = make(FILES)
    rows = index.children(ROOT)
    assert index.attributes(rows) == (
        [index.size(r) for r in rows],
        [index.mtime_ns(r) for r in rows],
    )
