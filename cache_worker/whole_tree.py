"""Make the tree of a wholly cached version whole, as a Native mount shows it.

Versions share inodes, and the name in a new version is made when somebody first asks for it; behind
a bind mount nobody asks. Looking is done in threads, making on the loop: only there nobody drops
what is just being linked.
"""

from __future__ import annotations

import asyncio
import os
import stat
import time
from typing import TYPE_CHECKING

from cacheop.api.index import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cache_worker.store import Store
    from cache_worker.versions import Version

MAKE_SECONDS = 120.0
LOOK_ENTRIES = 8192
"""Entries a thread looks at before the loop may end it."""
MAKE_FILES = 16
"""Files made or mended before others get a turn."""
_FILE_MODE, _DIRECTORY_MODE = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755


class Damaged(Exception):  # noqa: N818 - a finding, not a failure
    """Something is in the tree that is not what the manifest says."""


async def make_whole(store: Store, version: Version) -> bool:
    """Whether every directory and file of `version` is in its tree now, readable by all.

    Every chunk of it must be PRESENT, and whether that stayed so is the caller's to see.
    """
    deadline = time.monotonic() + MAKE_SECONDS
    batches = _look(version)
    try:
        while (found := await asyncio.to_thread(next, batches, None)) is not None:
            for number, row in enumerate(found):
                if not _mend(store, version, row):
                    return False
                if number % MAKE_FILES == MAKE_FILES - 1:
                    await asyncio.sleep(0)
            if time.monotonic() > deadline:
                return False
    except (Damaged, OSError):
        return False
    return True


def _look(version: Version) -> Iterator[list[int]]:
    """Batches of the rows that are not there, or not with the right mode. Raises Damaged."""
    index = version.index
    directories = [ROOT]
    batch: list[int] = []
    looked = 0
    for directory in directories:  # grows meanwhile
        path = f"{version.data}/{index.path(directory)}".rstrip("/")
        if directory == ROOT and _mode(path)[0] != _DIRECTORY_MODE:
            yield [ROOT]
        for rows in _slices(index.children(directory)):
            entries, kinds = index.entries(rows)
            sizes, _ = index.attributes(rows)
            for row, name, kind, size in zip(rows, entries, kinds, sizes, strict=True):
                if kind:
                    directories.append(row)
                mode, found_size = _mode(f"{path}/{os.fsdecode(name)}")
                if mode != (_DIRECTORY_MODE if kind else _FILE_MODE):
                    if mode and stat.S_IFMT(mode) != (stat.S_IFDIR if kind else stat.S_IFREG):
                        raise Damaged(f"{path}/{os.fsdecode(name)}")
                    batch.append(row)
                elif not kind and found_size != size:
                    raise Damaged(f"{path}/{os.fsdecode(name)}")
            looked += len(rows)
            if looked >= LOOK_ENTRIES:
                yield batch
                batch, looked = [], 0
        if batch:  # directories among them are looked into next
            yield batch
            batch, looked = [], 0
    yield batch


def _slices(rows: range) -> Iterator[range]:
    for start in range(rows.start, rows.stop, LOOK_ENTRIES):
        yield range(start, min(start + LOOK_ENTRIES, rows.stop))


def _mode(path: str) -> tuple[int, int]:
    """(type and mode, size); zeros: it is not there."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return 0, 0
    return found.st_mode & ~(stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX), found.st_size


def _mend(store: Store, version: Version, row: int) -> bool:
    """Make or link what is at `row`, readable by all; False if that cannot be."""
    path = version.path(row)
    if version.index.is_directory(row):
        os.makedirs(path, exist_ok=True)
        os.chmod(path, 0o755)  # noqa: S103 - as every directory of the store
        return True
    if not store.has_file(version, row) or os.lstat(path).st_size != version.index.size(row):
        return False
    os.chmod(path, 0o644)
    return True
