"""What a mount process must leave to its successor on the same FUSE fd: version and INIT answer.

The kernel asks INIT once per mount, and a mount shows one version for its whole life.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, NamedTuple

from cache_worker.mounts.kernel import Init

if TYPE_CHECKING:
    from pathlib import Path


class Record(NamedTuple):
    """Of one mount. `agreed` is None until INIT was answered."""

    version: str
    agreed: Init | None = None


def record_path(config: str, number: int) -> str:
    """The record's file for mount `number` of CONFIG; the supervisor removes it before a mount."""
    stem = config.removesuffix(".json")
    return f"{stem}.mount-{number}"


def load(path: Path) -> Record | None:
    """The record of a predecessor; None if there is none (or none whole)."""
    try:
        raw = json.loads(path.read_text())
        agreed = Init(*map(int, raw["init"])) if raw["init"] else None
        return Record(str(raw["version"]), agreed)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def save(path: Path, record: Record) -> None:
    """Replace the record atomically."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(json.dumps({"version": record.version, "init": record.agreed}))
    os.replace(new, path)
