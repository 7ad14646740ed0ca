"""What is left of a damaged cache directory. Reads, never writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import xxhash

from cache_worker.version_files import versions_on_disk
from cacheop.api.names import index_path, slots_path

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def versions_by_age(root: Path) -> list[str]:
    """The versions whose manifests are whole on the disk, oldest first."""
    return sorted(versions_on_disk(root), key=lambda v: (root / index_path(v)).stat().st_mtime_ns)


def manifest_checksum(root: Path, version: str) -> str:
    """Of the version's index and slots: a row that names another's slots would give its bytes.

    Read, not mapped: their pages are not to count as the worker's memory.
    """
    checksum = xxhash.xxh3_64()
    buffer = memoryview(bytearray(1 << 20))
    for path in (root / index_path(version), root / slots_path(version)):
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                checksum.update(buffer[:count])
    return checksum.hexdigest()


def checked(raw: object, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The known fields of `raw`, each of its default's type. ValueError for anything else."""
    if not isinstance(raw, dict):
        raise ValueError("not an object")  # noqa: TRY004 - damage, not a caller's mistake
    found = {}
    for key, default in defaults.items():
        value = raw.get(key, default)
        items = value if isinstance(value, list) else ()
        if type(value) is not type(default) or not all(isinstance(i, str) for i in items):
            raise ValueError(f"{key} is {value!r:.40}")
        found[key] = value
    return found
