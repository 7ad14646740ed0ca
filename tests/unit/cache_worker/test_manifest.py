"""The manifest against a dict: whatever was listed is found again, and nothing else."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from cache_worker import keys as reasons
from cache_worker.manifest import Builder, Manifest, MountPoint
from cache_worker.origins import Listing, OriginObject
from cacheop.api.chunk import chunk_count
from cacheop.api.errors import OriginError, StoreError, UserError
from cacheop.api.index import ROOT, Index

# The machine is shared: no deadline; and no folder of examples is left in the checkout.
property_test = settings(deadline=None, database=None)
ONE_MOUNT = (MountPoint("s3://bucket/prefix/", "/"),)

# Few different letters and bytes on both sides of the slash, so that prefixes and order are tried.
part = st.text("ab-.0é", min_size=1, max_size=4).filter(lambda text: text not in {".", ".."})
path = st.lists(part, min_size=1, max_size=5).map("/".join)
size = st.integers(0, 40 << 20)
tag = st.sampled_from(["", '"abc"', "x-2", "é"])
moment = st.integers(-(2**62), 2**62)
objects = st.dictionaries(path, st.tuples(size, tag, tag, moment), min_size=1, max_size=40)


def listing(items: list[OriginObject]) -> Listing:
    return Listing(
        [item.key for item in items],
        [item.size_bytes for item in items],
        [item.mtime_ns for item in items],
        [item.etag for item in items],
        [item.version_id for item in items],
    )


def as_objects(model: dict) -> list[OriginObject]:
    return [
        OriginObject(key, size_, etag, version_id, mtime)
        for key, (size_, etag, version_id, mtime) in model.items()
    ]


def build(items: list[OriginObject], mounts=ONE_MOUNT, batch: int = 7) -> Manifest:
    builder = Builder(mounts)
    for start in range(0, len(items), batch):
        builder.add(0, listing(items[start : start + batch]))
    return builder.finish()


def index_of(manifest: Manifest) -> Index:
    return Index(b"".join(manifest.index_pieces()))


def without_shadowed(model: dict) -> dict:
    """What is left when a file that is a directory too is left out."""
    directories = {key[:at] for key in model for at, char in enumerate(key) if char == "/"}
    return {key: value for key, value in model.items() if key not in directories}


def directories_of(paths) -> set[str]:
    return {path_[:at] for path_ in paths for at, char in enumerate(path_) if char == "/"}


@property_test
@given(objects, st.integers(1, 50), st.sampled_from(["/", "/train", "/a/b"]))
def test_index_says_what_was_listed(model, batch, base) -> None:
    items = as_objects(model)
    random.Random(batch).shuffle(items)
    manifest = build(items, (MountPoint("s3://bucket/prefix/", base),), batch)
    index = index_of(manifest)
    kept = without_shadowed(model)
    prefix = base.strip("/") + "/" if base != "/" else ""
    expected = {prefix + key: (key, *value) for key, value in kept.items()}

    found = {}
    for row in range(index.rows):
        if not index.is_directory(row):
            about = (index.size(row), index.etag(row), index.origin_version(row))
            found[index.path(row)] = (index.origin_key(row), *about, index.mtime_ns(row))
            assert index.resolve("/" + index.path(row) + "/") == row
    assert found == expected
    assert index.files == len(expected) == manifest.files
    assert index.bytes == sum(value[1] for value in expected.values()) == manifest.total_bytes
    assert index.chunks == sum(chunk_count(value[1]) for value in expected.values())
    assert index.directories == len(directories_of(expected)) == manifest.directories
    assert index.rows == index.files + index.directories
    check_directories(index, expected)


def check_directories(index: Index, expected: dict) -> None:
    for directory in {"", *directories_of(expected)}:
        row = index.resolve(directory)
        assert row is not None
        assert index.is_directory(row)
        start = directory + "/" if directory else ""
        below = [path_ for path_ in expected if path_.startswith(start)]
        entries = {path_[len(start) :].split("/")[0].encode() for path_ in below}
        listed = [index.name(child) for child in index.children(row)]
        assert listed == sorted(entries)
        assert all(index.parent(child) == row for child in index.children(row))
        rows = [r for level in index.subtree(row) for r in level]
        assert sorted(index.path(r) for r in rows if not index.is_directory(r)) == sorted(below)
        inner = {d for d in directories_of(expected) if d.startswith(start)} - {directory}
        assert {index.path(r) for r in rows if index.is_directory(r)} == inner
        assert index.lookup(row, b"not there") is None
        if row != ROOT:
            assert index.mtime_ns(row) == max(expected[path_][4] for path_ in below)


@property_test
@given(objects, st.integers(1, 9), st.integers(1, 9), st.randoms(use_true_random=False))
def test_version_depends_on_what_is_listed_not_how(model, one, other, rng) -> None:
    items = as_objects(model)
    first = build(sorted(items, key=lambda item: item.key), batch=one)
    rng.shuffle(items)
    second = build(items, batch=other)
    assert first.version == second.version
    assert b"".join(first.index_pieces()) == b"".join(second.index_pieces())


@property_test
@given(objects, st.data())
def test_any_change_is_another_version(model, data) -> None:
    model = without_shadowed(model)
    before = build(as_objects(model)).version
    key = data.draw(st.sampled_from(sorted(model)))
    size_, etag, version_id, mtime = model[key]
    changed = data.draw(
        st.sampled_from(
            [
                (size_ + 1, etag, version_id, mtime),
                (size_, etag + "x", version_id, mtime),
                (size_, etag, version_id + "x", mtime),
                (size_, etag, version_id, mtime + 1),
            ]
        )
    )
    assert build(as_objects({**model, key: changed})).version != before
    elsewhere = (MountPoint("s3://other/", "/"),)
    assert build(as_objects(model), elsewhere).version != before


def test_content_names_what_the_bytes_depend_on() -> None:
    def content(uri="s3://b/p/", key="k", size=1, etag="e", version_id="", mtime=5) -> bytes:
        item = OriginObject(key, size, etag, version_id, mtime)
        index = index_of(build([item], (MountPoint(uri, "/"),)))
        return index.content(0)

    assert content() == xxhash.xxh3_128_digest(b"s3://b/p\0k\0e\0\0001\0")
    assert content(uri="s3://b/p") == content()
    assert content(mtime=6) == content()  # the tag says it all
    assert content(etag="") != content(etag="", mtime=6)  # nothing else says it
    assert content(etag="", version_id="e") != content()
    others = [content(key="l"), content(size=2), content(etag="f"), content(uri="s3://c/")]
    assert len({content(), *others}) == 5


def test_tags_are_told_as_the_origin_gave_them() -> None:
    index = index_of(build([OriginObject("a", 1, "", "", 7), OriginObject("b", 1, "", "v", 7)]))
    assert [index.etag(row) for row in (0, 1)] == ["", ""]
    assert [index.origin_version(row) for row in (0, 1)] == ["", "v"]


ODD = {
    reasons.EMPTY: ["a//b", "/lead", "a/b//c"],
    reasons.DOTS: [".", "..", "a/../b", "a/./b", "../x"],
    reasons.NUL: ["nul\0", "a/\0/b"],
    reasons.LONG_PART: ["p" * 256, "a/" + "é" * 128],
    reasons.LONG_PATH: ["/".join(["d" * 200] * 21)],
    reasons.NOT_UTF8: ["bad\udcff"],
}


def test_odd_keys_are_left_out_counted_and_named() -> None:
    good = ["a/b", "..a", "a/.b", "...", "p" * 255, "/".join(["d" * 255] * 15)]
    odd = [key for of_reason in ODD.values() for key in of_reason]
    mixed = good + odd
    random.Random(3).shuffle(mixed)
    manifest = build([OriginObject(key, 1, "t", "", 0) for key in mixed], batch=4)
    index = index_of(manifest)
    assert {index.path(r) for r in range(index.rows) if not index.is_directory(r)} == set(good)
    assert {why: about["count"] for why, about in manifest.skipped.items()} == {
        why: len(of_reason) for why, of_reason in ODD.items()
    }
    assert set(manifest.skipped[reasons.DOTS]["examples"]) == set(ODD[reasons.DOTS])
    assert manifest.skipped[reasons.NOT_UTF8]["examples"] == ["bad\\xff"]
    assert index.meta["skipped"] == manifest.skipped


def test_examples_are_few() -> None:
    items = [OriginObject(f"a//{n}", 1, "", "", 0) for n in range(100)]
    manifest = build([*items, OriginObject("x", 1, "", "", 0)])
    about = manifest.skipped[reasons.EMPTY]
    assert about["count"] == 100
    assert len(about["examples"]) == 5


def test_directory_markers_are_no_files() -> None:
    items = [
        OriginObject("", 0, "", "", 0),
        OriginObject("a/", 0, "", "", 0),
        OriginObject("full/", 3, "", "", 0),
        OriginObject("a/b", 1, "", "", 0),
    ]
    manifest = build(items)
    assert manifest.files == 1
    assert manifest.skipped == {reasons.MARKER: {"count": 1, "examples": ["full/"]}}


def test_a_file_that_is_a_directory_too_is_left_out() -> None:
    items = [OriginObject(key, 1, key, "", 0) for key in ("a", "a/b", "a/b/c", "a.b", "a-b")]
    manifest = build(items, batch=2)
    index = index_of(manifest)
    assert [index.name(row) for row in index.children(ROOT)] == [b"a", b"a-b", b"a.b"]
    assert manifest.skipped[reasons.FILE_AND_DIRECTORY]["count"] == 2


@pytest.mark.parametrize("batch", [1, 2, 100])
def test_of_keys_listed_twice_the_last_stays(batch) -> None:
    items = [OriginObject("b", 1, "old", "", 0), OriginObject("a", 1, "", "", 0)]
    manifest = build([*items, OriginObject("b", 2, "new", "", 0)], batch=batch)
    index = index_of(manifest)
    assert manifest.skipped == {reasons.TWICE: {"count": 1, "examples": ["b"]}}
    row = index.resolve("b")
    assert row is not None
    assert (index.etag(row), index.size(row)) == ("new", 2)


def test_mounts_are_merged_at_their_paths() -> None:
    mounts = (MountPoint("s3://one/", "/left"), MountPoint("gs://two/x", "/right/deep/"))
    one, two = (OriginObject(key, 1, "t", "", 0) for key in ("f", "d/f"))
    versions = []
    for order in ((0, 1), (1, 0)):
        builder = Builder(mounts)
        for number in order:
            builder.add(number, listing([(one, two)[number]]))
        manifest = builder.finish()
        versions.append(manifest.version)
        index = index_of(manifest)
        left, right = index.resolve("left/f"), index.resolve("right/deep/d/f")
        assert left is not None
        assert right is not None
        assert (index.mount(left), index.mount(right)) == (0, 1)
        assert (index.origin_key(left), index.origin_key(right)) == ("f", "d/f")
    assert versions[0] == versions[1]


def test_columns_come_as_arrow_numpy_or_lists() -> None:
    plain = Listing(["a", "b/c"], [1, 2], [3_000, 4_000], ["x", ""], ["", "v"])
    arrow = Listing(
        pa.array(["a", "b/c"], pa.string_view()),
        pa.array([1, 2], pa.uint64()),
        pa.array([3, 4], pa.timestamp("us", "UTC")),
        pa.chunked_array([["x"], [None]], pa.string()),
        pa.array([None, "v"]),
    )
    sliced = Listing(
        pa.array(["-", "a", "b/c"])[1:],
        np.array([1, 2], np.int32),
        np.array([3_000, 4_000]),
        pa.array(["-", b"x", b""], pa.binary())[1:],
        [None, "v"],
    )
    versions = set()
    for batch in (plain, arrow, sliced):
        builder = Builder(ONE_MOUNT)
        builder.add(0, batch)
        assert builder.keys == 2
        versions.add(builder.finish().version)
    assert len(versions) == 1


def test_a_listing_that_makes_no_sense_is_refused() -> None:
    for broken in (
        Listing(["a"], [1, 2], [0], [""], [""]),
        Listing(["a"], ["many"], [0], [""], [""]),
        Listing([None], [1], [0], [""], [""]),
    ):
        with pytest.raises(OriginError, match="s3://bucket/prefix/"):
            Builder(ONE_MOUNT).add(0, broken)


def test_objects_without_a_size_are_left_out() -> None:
    builder = Builder(ONE_MOUNT)
    builder.add(0, Listing(["a", "b"], [None, 2], [0, None], ["", None], ["", ""]))
    manifest = builder.finish()
    assert manifest.files == 1
    assert manifest.skipped[reasons.NO_SIZE] == {"count": 1, "examples": ["a"]}


def test_a_mount_without_files_is_named() -> None:
    builder = Builder((*ONE_MOUNT, MountPoint("gs://empty/", "/x")))
    builder.add(0, listing([OriginObject("a", 1, "", "", 0)]))
    builder.add(1, listing([OriginObject("a//b", 1, "", "", 0)]))
    with pytest.raises(UserError, match=r"gs://empty/ \(empty part"):
        builder.finish()
    with pytest.raises(UserError, match=r"s3://bucket/prefix/ \(there is nothing"):
        Builder(ONE_MOUNT).finish()


def test_a_deep_tree() -> None:
    deep = "/".join(["d"] * 2000)
    index = index_of(build([OriginObject(deep + "/f", 1, "", "", 9)]))
    row = index.resolve(deep + "/f")
    assert row is not None
    assert row == index.rows - 1
    assert index.path(row) == deep + "/f"
    assert index.mtime_ns(0) == 9


def test_a_cut_off_index_is_refused() -> None:
    whole = b"".join(build([OriginObject("a/b", 1, "tag", "", 0)]).index_pieces())
    Index(whole)
    for length in (0, 7, 8, 100, len(whole) // 2, len(whole) - 1):
        with pytest.raises(StoreError):
            Index(whole[:length])


def test_the_table_for_people(tmp_path) -> None:
    items = [OriginObject(key, len(key), "e", "v", 10**18) for key in ("b", "a/c", "a.x")]
    table = build(items).table
    assert table.column("path").to_pylist() == ["a/c", "a.x", "b"]
    assert table.column("size").to_pylist() == [3, 3, 1]
    assert table.column("mount").to_pylist() == ["s3://bucket/prefix/"] * 3
    assert table.column("etag").to_pylist() == ["e"] * 3
    assert table.column("version_id").to_pylist() == ["v"] * 3
    assert table.column("mtime").cast(pa.int64()).to_pylist() == [10**18] * 3


def test_names_of_any_bytes_that_are_utf8() -> None:
    rng = random.Random(11)
    keys = {"".join(chr(rng.randrange(1, 0xD800)) for _ in range(20)) for _ in range(200)}
    keys = {key.replace("/", "_") for key in keys}
    index = index_of(build([OriginObject(key, 1, "", "", 0) for key in keys]))
    assert {index.path(row) for row in range(index.rows)} == keys
