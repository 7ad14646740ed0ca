"""A store on disk as the contract says, made without a worker: index, slots, chunk table, files.

The content of a file follows from its path and size alone, so that every process knows it.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import random
import struct
from functools import cache
from typing import TYPE_CHECKING

from cacheop.api import names, table
from cacheop.api.chunk import chunk_count, chunk_span
from cacheop.api.index import Index

if TYPE_CHECKING:
    from pathlib import Path

MTIME_NS = 1_700_000_000_123_456_789
_PERIOD = (1 << 20) + 13  # odd, so that no two chunks are the same


@cache
def _block(path: str) -> bytes:
    return random.Random(path).randbytes(_PERIOD)


def content(path: str, offset: int, length: int) -> bytes:
    block = _block(path)
    start = offset % _PERIOD
    return (block * (2 + length // _PERIOD))[start : start + length]


def checksum(path: str, size: int) -> str:
    digest = hashlib.sha256()
    for offset in range(0, size, 8 << 20):
        digest.update(content(path, offset, min(8 << 20, size - offset)))
    return digest.hexdigest()


class StoreFiles:
    """Opens a root that `lay_out` made; the one writer of its table and files."""

    def __init__(self, root: Path, version: str) -> None:
        self.root, self.version = root, version
        self.index = Index((root / names.index_path(version)).read_bytes())
        self.slots = table.Slots((root / names.slots_path(version)).read_bytes())
        self._fd = os.open(root / names.CHUNK_TABLE, os.O_RDWR | os.O_CLOEXEC)
        columns = table.columns(memoryview(mmap.mmap(self._fd, table.FILE_BYTES)))
        self.state, self.file = columns["state"], columns["file"]

    def path(self, row: int) -> Path:
        return self.root / names.data_path(self.version) / self.index.path(row)

    def fill(self, row: int, chunk: int) -> None:
        size, slot = self.index.size(row), self.slots.first_slot(row) + chunk
        if self.state[slot] & table.STATE_MASK == table.PRESENT:
            return
        offset, length = chunk_span(size, chunk)
        path = self.path(row)
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(fd, size)
        os.pwrite(fd, content(self.index.path(row), offset, length), offset)
        os.close(fd)
        self.state[slot] = self.state[slot] & ~table.STATE_MASK | table.PRESENT
        first, count = self.slots.first_slot(row), chunk_count(size)
        states = bytes(self.state[first : first + count])
        if all(state & table.STATE_MASK == table.PRESENT for state in states):
            self.file[first] = table.COMPLETE

    def fill_file(self, row: int) -> None:
        for chunk in range(chunk_count(self.index.size(row))):
            self.fill(row, chunk)

    def fill_all(self) -> None:
        for row in range(self.index.rows):
            if not self.index.is_directory(row):
                self.fill_file(row)

    def drop(self, row: int, chunk: int = 0) -> None:
        """Evict as the worker does: flags first, then unlink what was complete, else punch."""
        first = self.slots.first_slot(row)
        whole = self.file[first] == table.COMPLETE
        self.file[first] = table.INCOMPLETE
        chunks = range(chunk_count(self.index.size(row))) if whole else [chunk]
        for number in chunks:
            byte = self.state[first + number]
            self.state[first + number] = (byte + table.GENERATION & 0xFF) & ~table.STATE_MASK
        if whole:
            self.path(row).unlink()
        else:
            offset, length = chunk_span(self.index.size(row), chunk)
            with self.path(row).open("r+b") as file:
                file.seek(offset)
                file.write(bytes(length))


def lay_out(root: Path, files: dict[str, int]) -> StoreFiles:
    """An empty store of a version with `files` (path -> bytes) below `root`."""
    from cache_worker.manifest import Builder, MountPoint  # pyarrow: not for the fake worker
    from cache_worker.origins import Listing

    (root / names.MANIFEST_DIR).mkdir(parents=True, exist_ok=True)
    paths = list(files)
    builder = Builder([MountPoint("s3://test", "/")])
    count = len(paths)
    etags = [hashlib.md5(p.encode()).hexdigest() for p in paths]
    builder.add(
        0, Listing(paths, [files[p] for p in paths], [MTIME_NS] * count, etags, [""] * count)
    )
    manifest = builder.finish()
    with (root / names.index_path(manifest.version)).open("wb") as file:
        for piece in manifest.index_pieces():
            file.write(piece)
    index = Index((root / names.index_path(manifest.version)).read_bytes())
    _write_slots(root / names.slots_path(manifest.version), index)
    with (root / names.CHUNK_TABLE).open("wb") as file:
        file.write(table.HEADER.pack(table.MAGIC, table.CAPACITY))
        file.truncate(table.FILE_BYTES)
    (root / names.data_path(manifest.version)).mkdir(parents=True)
    return StoreFiles(root, manifest.version)


def _write_slots(path: Path, index: Index) -> None:
    first, rows, slot = [], [], 0
    for row in range(index.rows):
        if index.is_directory(row):
            first.append(table.NO_SLOT)
        else:
            first.append(slot)
            rows.append(row)
            slot += chunk_count(index.size(row))
    header = table.SLOTS_HEADER.pack(table.SLOTS_MAGIC, index.rows, len(rows))
    path.write_bytes(header + struct.pack(f"<{len(first) + len(rows)}I", *first, *rows))
