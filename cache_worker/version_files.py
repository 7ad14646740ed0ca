"""The files of a version below a Dataset's root: written whole or not at all, the index last."""

from __future__ import annotations

import json
import mmap
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from cacheop.api.errors import NotFoundError, StoreError
from cacheop.api.index import Index
from cacheop.api.names import MANIFEST_DIR, STATE_FILE, arrow_path, index_path, slots_path
from cacheop.api.table import Slots

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cache_worker.manifest import Manifest

_TEMPORARY = ".new"
_READABLE_BY_ALL = 0o644  # clients of any user map them; they hold names, not contents


def current_version(root: Path) -> str:
    """The version that the worker serves now, "" if there is none yet."""
    try:
        state = json.loads((root / STATE_FILE).read_text())
        return str(state.get("current") or "")
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, AttributeError) as error:
        raise StoreError(f"cannot read {root / STATE_FILE}: {error}") from error


def versions_on_disk(root: Path) -> list[str]:
    """The versions that are whole here: those with an index and slots."""
    directory = root / MANIFEST_DIR
    if not directory.is_dir():
        return []
    found = sorted(path.stem for path in directory.glob("*.index"))
    return [version for version in found if (root / slots_path(version)).exists()]


def open_index(root: Path, version: str) -> Index:
    """The version's index, mapped for as long as it lives. Raises NotFoundError, StoreError."""
    return Index(map_file(root / index_path(version)))


def open_slots(root: Path, version: str) -> Slots:
    """The version's slots, mapped for as long as they live. Raises NotFoundError, StoreError."""
    return Slots(map_file(root / slots_path(version)))


def write_version(root: Path, manifest: Manifest) -> bool:
    """Write the version's files; False if they were there. Raises StoreError, for a full disk too.

    Only one process writes here at a time: the worker starts one index child after the other.
    """
    return _write(
        root,
        manifest.version,
        manifest.index_pieces(),
        lambda path: _write_arrow(path, manifest),
    )


def adopt_version(root: Path, version: str, index: Path, arrow: Path) -> bool:
    """The same with files that another node made, which go then. Checks that they belong together.

    Raises StoreError when the index is not that version's.
    """
    from cache_worker.manifest import version_of

    view = map_file(index)
    found = version_of(Index(view))
    if found != version:
        raise StoreError(f"what a peer gave as version {version} is {found}")
    written = _write(root, version, [view], lambda path: os.rename(arrow, path))
    for path in (index, arrow):
        path.unlink(missing_ok=True)
    return written


def _write(
    root: Path, version: str, pieces: list[memoryview], make_arrow: Callable[[Path], None]
) -> bool:
    if (root / index_path(version)).exists() and (root / slots_path(version)).exists():
        return False
    from cache_worker.slots import allot

    try:
        (root / MANIFEST_DIR).mkdir(parents=True, exist_ok=True)
        _remove_leftovers(root / MANIFEST_DIR)
        # The thread is this function's; it writes (and syncs) the large table meanwhile.
        with ThreadPoolExecutor(1, "arrow") as pool:
            arrow = pool.submit(make_arrow, root / arrow_path(version))
            with _replacing(root / index_path(version)) as file:
                _write_all(file, pieces)
                kept = [
                    (open_index(root, other), open_slots(root, other))
                    for other in versions_on_disk(root)
                    if other != version
                ]
                slots = allot(Index(_map_open(file)), kept)
                with _replacing(root / slots_path(version)) as slots_file:
                    _write_all(slots_file, slots)
                arrow.result()
        _sync_directory(root / MANIFEST_DIR)
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(
            f"cannot write version {version} below {root}: {error}",
            hint="Check the space and the permissions of the cache directory",
        ) from error
    return True


def _write_arrow(path: Path, manifest: Manifest) -> None:
    import pyarrow as pa

    with _replacing(path) as file, pa.ipc.new_file(file, manifest.table.schema) as writer:
        writer.write_table(manifest.table, max_chunksize=1 << 16)


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of `path` when the block ends well, synced; else it is gone."""
    temporary = path.with_name(path.name + _TEMPORARY)
    fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _READABLE_BY_ALL)
    try:
        with open(fd, "r+b", buffering=0) as file:
            yield file
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _write_all(file: IO[bytes], pieces: list[memoryview]) -> None:
    for piece in pieces:
        left = piece
        while left:
            left = left[file.write(left) :]


def _map_open(file: IO[bytes]) -> memoryview:
    return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def map_file(path: Path) -> memoryview:
    """The file as a read-only mapping, which lives as long as a view of it."""
    try:
        with path.open("rb") as file:
            return _map_open(file)
    except FileNotFoundError as error:
        raise NotFoundError(
            f"{path} is not there",
            hint="`cacheop versions` lists what is cached",
        ) from error
    except ValueError as error:  # an empty file cannot be mapped
        raise StoreError(f"{path} is cut short", hint="Index again: `cacheop refresh`") from error


def _remove_leftovers(directory: Path) -> None:
    for path in directory.glob(f"*{_TEMPORARY}"):
        path.unlink(missing_ok=True)


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
