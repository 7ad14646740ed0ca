"""Listings -> one immutable version: the flat index of cacheop/api/index.py and an Arrow table.

`Builder.add` takes batches while the origin is still listing, so it does there what needs no other
batch; `finish` sorts, makes the tree and hashes. Nothing here reads or writes a file.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cache_worker import tree
from cache_worker.batches import CONTENT_BYTES, columns_of, content_of
from cache_worker.keys import (
    FILE_AND_DIRECTORY,
    MARKER,
    TWICE,
    Skipped,
    concatenate,
    heap,
    in_order,
    odd,
    parts_of,
    split,
)
from cacheop.api.chunk import CHUNK_BYTES
from cacheop.api.errors import UserError
from cacheop.api.index import ALIGN_BYTES, COLUMNS, FILE, HEADER, HEADER_BYTES, MAGIC, SECTION

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cache_worker.keys import Ints, Mask
    from cache_worker.origins import Listing
    from cacheop.api.index import Index

VERSION_DIGITS = 16
MOUNTS_MAX = 256  # the index has one byte for it
_SALT = b"cacheop manifest 1\n"


@dataclass(frozen=True, slots=True)
class MountPoint:
    """Where a part of the Dataset comes from (`uri`) and where it lies in it (`path`)."""

    uri: str
    path: str

    @property
    def base(self) -> bytes:
        """`path` without slashes at its ends."""
        return self.path.strip("/").encode()


@dataclass(frozen=True, slots=True)
class Manifest:
    """A version, ready to be written. `sections` are META and the columns, in file order."""

    version: str
    files: int
    directories: int
    total_bytes: int
    skipped: dict[str, dict[str, Any]]
    header: bytes
    sections: Sequence[memoryview]
    table: pa.Table

    def index_pieces(self) -> list[memoryview]:
        """The index file from start to end, columns aligned."""
        pieces = [memoryview(self.header)]
        at = len(self.header)
        for section in self.sections:
            padding = -at % ALIGN_BYTES
            pieces += [memoryview(bytes(padding)), section]
            at += padding + section.nbytes
        return pieces


@dataclass(frozen=True, slots=True)
class _Files:
    """Files as columns. `directory` numbers an array of directories kept elsewhere."""

    paths: pa.ChunkedArray
    names: pa.ChunkedArray
    directory: Ints
    sizes: Ints
    mtimes: Ints
    etags: pa.ChunkedArray
    version_ids: pa.ChunkedArray
    tags: pa.ChunkedArray  # etag, NUL, version id
    content: np.ndarray[tuple[int, int], np.dtype[np.uint8]]
    mount: np.ndarray[tuple[int], np.dtype[np.uint8]]

    def take(self, rows: Ints) -> _Files:
        """Those files, in that order."""
        index = pa.array(rows)
        return _Files(
            self.paths.take(index),
            self.names.take(index),
            self.directory[rows],
            self.sizes[rows],
            self.mtimes[rows],
            self.etags.take(index),
            self.version_ids.take(index),
            self.tags.take(index),
            self.content[rows],
            self.mount[rows],
        )


class Builder:
    """Collects the listings of a Dataset's mounts, then makes the version."""

    def __init__(self, mounts: Sequence[MountPoint]) -> None:
        if len(mounts) > MOUNTS_MAX:
            raise UserError(f"{len(mounts)} mounts are more than {MOUNTS_MAX}")
        self._mounts = tuple(mounts)
        self._batches: list[list[_Files]] = [[] for _ in mounts]
        # A batch numbers its own directories; this says from where in `_directories`.
        self._directories: list[list[pa.LargeBinaryArray]] = [[] for _ in mounts]
        self._skipped = Skipped()
        # Whether the files came in tree order so far, each once, as S3's listings mostly do.
        self._ascending = len(mounts) == 1
        self._last: bytes | None = None
        self.keys = 0

    def add(self, mount: int, listing: Listing) -> None:
        """A batch of objects of mount number `mount`. Raises OriginError if it makes no sense."""
        columns = columns_of(listing, self._mounts[mount].uri, self._skipped)
        self.keys += columns.seen
        base = self._mounts[mount].base
        keys = columns.keys
        if len(keys) == 0:
            return
        paths = concatenate((base, keys), b"/") if base else keys
        parts = parts_of(paths)
        bad = np.zeros(len(keys), np.bool_)
        for reason, mask in odd(parts).items():
            bad |= mask
            told = mask & (columns.sizes > 0) if reason == MARKER else mask
            self._skipped.note_where(reason, told, keys)
        if bad.any():
            columns, keep = columns.take(np.flatnonzero(~bad)), pa.array(~bad)
            keys, paths = columns.keys, paths.filter(keep)
            if len(keys) == 0:
                return
            parts = parts_of(paths)
        if self._ascending:
            sort_keys = tree.sort_keys(paths)
            self._ascending = tree.ascending(self._last, sort_keys)
            self._last = sort_keys[-1].as_py()
        directories, names = split(parts)
        encoded = directories.dictionary_encode()
        content = content_of(self._mounts[mount].uri, columns)
        self._directories[mount].append(encoded.dictionary)
        self._batches[mount].append(
            _Files(
                pa.chunked_array([paths]),
                pa.chunked_array([names]),
                encoded.indices.to_numpy().astype(np.int64),
                columns.sizes,
                columns.mtimes,
                pa.chunked_array([columns.etags]),
                pa.chunked_array([columns.version_ids]),
                pa.chunked_array([concatenate((columns.etags, columns.version_ids), b"\0")]),
                np.frombuffer(content, np.uint8).reshape(-1, CONTENT_BYTES),
                np.full(len(keys), mount, np.uint8),
            )
        )

    def finish(self) -> Manifest:
        """The version. Raises UserError if a mount has no files."""
        for mount, batches in zip(self._mounts, self._batches, strict=True):
            if not batches:
                left_out = "; ".join(self._skipped.counts) or "there is nothing"
                raise UserError(
                    f"no files below {mount.uri} ({left_out})",
                    hint="Check the bucket and prefix in spec.mounts[].mountPoint",
                )
        files, directories = self._joined()
        shadowed = pc.is_in(files.paths, value_set=directories).to_numpy()
        files = self._without(files, shadowed, FILE_AND_DIRECTORY)
        grown = tree.build(directories, files.directory, files.names, files.mtimes)
        return _manifest(self._mounts, files, grown, self._skipped.document())

    def _joined(self) -> tuple[_Files, pa.LargeBinaryArray]:
        """All batches as one, in tree order, and the directories that they number now."""
        batches = [batch for of_mount in self._batches for batch in of_mount]
        named = [names for of_mount in self._directories for names in of_mount]
        self._batches, self._directories = [], []  # the listing is the largest thing in memory
        directories = tree.with_ancestors(pa.concat_arrays(named))
        numbers = [
            pc.index_in(names, value_set=directories).to_numpy().astype(np.int64) for names in named
        ]
        files = _Files(
            pa.chunked_array([chunk for b in batches for chunk in b.paths.chunks]),
            pa.chunked_array([chunk for b in batches for chunk in b.names.chunks]),
            np.concatenate([n[b.directory] for n, b in zip(numbers, batches, strict=True)]),
            np.concatenate([b.sizes for b in batches]),
            np.concatenate([b.mtimes for b in batches]),
            pa.chunked_array([chunk for b in batches for chunk in b.etags.chunks]),
            pa.chunked_array([chunk for b in batches for chunk in b.version_ids.chunks]),
            pa.chunked_array([chunk for b in batches for chunk in b.tags.chunks]),
            np.concatenate([b.content for b in batches]),
            np.concatenate([b.mount for b in batches]),
        )
        if self._ascending:
            return files, directories
        files = files.take(tree.tree_order(pa.concat_arrays(files.paths.chunks)))
        twice = pc.equal(files.paths[:-1], files.paths[1:]).to_numpy()
        return self._without(files, np.append(twice, [False]), TWICE), directories

    def _without(self, files: _Files, out: Mask, reason: str) -> _Files:
        """The files that are not `out`; the others are noted under `reason`."""
        if not out.any():
            return files
        self._skipped.note_where(reason, out, files.paths)
        return files.take(np.flatnonzero(~out))


def _manifest(
    mounts: Sequence[MountPoint],
    files: _Files,
    grown: tree.Tree,
    skipped: Mapping[str, dict[str, Any]],
) -> Manifest:
    told = [{"mountPoint": mount.uri, "path": mount.path} for mount in mounts]
    columns = {name: _view(column) for name, column in _rows(files, grown).items()}
    version = _version(told, columns)
    meta = {"version": version, "mounts": told, "skipped": skipped}
    sections = [memoryview(json.dumps(meta).encode()), *(columns[name] for name, _ in COLUMNS)]
    total_bytes = int(files.sizes.sum())
    head = HEADER.pack(
        MAGIC,
        HEADER_BYTES,
        len(grown.kind),
        len(files.sizes),
        grown.directories,
        int(np.maximum(1, -(-files.sizes // CHUNK_BYTES)).sum()),
        total_bytes,
        grown.top,
    )
    return Manifest(
        version=version,
        files=len(files.sizes),
        directories=grown.directories,
        total_bytes=total_bytes,
        skipped=dict(skipped),
        header=head + _section_table(sections),
        sections=sections,
        table=_table(mounts, files),
    )


def _rows(files: _Files, grown: tree.Tree) -> dict[str, np.ndarray[Any, Any]]:
    """The index's columns: what the files say, moved to their rows, beside the tree's own."""
    rows = len(grown.kind)
    sizes, mount = np.zeros(rows, np.uint64), np.zeros(rows, np.uint8)
    content = np.zeros((rows, CONTENT_BYTES), np.uint8)
    sizes[grown.file_row], mount[grown.file_row] = files.sizes, files.mount
    content[grown.file_row] = files.content
    name_at, names = heap(grown.names)
    file_at, tags = heap(
        in_order(pa.concat_arrays(files.tags.chunks), grown.row_file[grown.row_file >= 0])
    )
    tag_at = np.zeros(rows + 1, np.uint64)  # directories have no bytes there
    tag_at[1:][grown.kind == FILE] = np.diff(file_at)
    np.cumsum(tag_at, out=tag_at)
    return {
        "kind": grown.kind,
        "mount": mount,
        "parent": grown.parent,
        "first": grown.first,
        "count": grown.count,
        "size": sizes,
        "mtime": grown.mtime,
        "name_at": name_at.astype(np.uint64),
        "names": names,
        "tag_at": tag_at,
        "tags": tags,
        "content": content,
    }


def _view(column: np.ndarray[Any, Any]) -> memoryview:
    return memoryview(column.data).cast("B") if column.size else memoryview(b"")


def _version(mounts: object, columns: Mapping[str, memoryview]) -> str:
    """Names what the manifest says; the columns left out follow from the others."""
    digest = hashlib.sha256(_SALT)
    digest.update(json.dumps(mounts, sort_keys=True).encode())
    for name, column in columns.items():
        if name not in {"first", "count", "content"}:
            digest.update(b"%s %d\n" % (name.encode(), column.nbytes))
            digest.update(column)
    return digest.hexdigest()[:VERSION_DIGITS]


def version_of(index: Index) -> str:
    """The version that an index file names by what it says; StoreError if it cannot be read.

    A proof that it arrived whole: to be compared with the name that it goes by.
    """
    columns = {name: memoryview(getattr(index, f"_{name}")).cast("B") for name, _ in COLUMNS}
    return _version(index.meta["mounts"], columns)


def _section_table(sections: Sequence[memoryview]) -> bytes:
    table, at = b"", HEADER_BYTES
    for section in sections:
        at += -at % ALIGN_BYTES
        table += SECTION.pack(at, section.nbytes)
        at += section.nbytes
    return table


def _table(mounts: Sequence[MountPoint], files: _Files) -> pa.Table:
    """The files, for people and tools, sorted by path."""
    names = pa.array([mount.uri for mount in mounts])
    return pa.table(
        {
            "path": files.paths.cast(pa.large_string()),
            "size": files.sizes,
            "mtime": pa.array(files.mtimes).cast(pa.timestamp("ns", "UTC")),
            "etag": files.etags.cast(pa.large_string()),
            "version_id": files.version_ids.cast(pa.large_string()),
            "mount": pa.DictionaryArray.from_arrays(pa.array(files.mount), names),
        }
    )
