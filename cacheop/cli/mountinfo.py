"""What is mounted, by the kernel's list: looking into a mount whose server is dead hangs. Pure."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cacheop.api import names

if TYPE_CHECKING:
    from collections.abc import Iterable

FUSE_TYPE = "fuse.cacheop"
PATH = Path("/proc/self/mountinfo")
_FIELDS = 5  # id, parent, major:minor, root, target, options, …, " - ", type, source, options


class Mounted(NamedTuple):
    """One line of it."""

    device: str
    """major:minor"""
    root: str
    """What of the file system is shown: "/" or, of a bind mount, a directory in it."""
    target: str
    type: str


def parse(text: str) -> list[Mounted]:
    """Every mount, later ones lie on top of earlier ones."""
    found = []
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        if len(fields) > _FIELDS and right:
            root, target = _unescape(fields[3]), _unescape(fields[4])
            found.append(Mounted(fields[2], root, target, right.split(" ")[0]))
    return found


def at(target: Path, mounts: Iterable[Mounted]) -> Mounted | None:
    """The topmost mount at `target`; None if nothing is mounted there."""
    return next((m for m in reversed(list(mounts)) if m.target == str(target)), None)


def is_ours(mount: Mounted, roots: Iterable[Path], mounts: Iterable[Mounted]) -> bool:
    """Whether it is a FUSE mount of ours, or a bind of files in the caches `roots`."""
    if mount.type == FUSE_TYPE:
        return True
    for root in roots:
        below = _in_file_system(root / names.DATA_DIR, mounts)
        if below and below[0] == mount.device and mount.root.startswith(below[1] + "/"):
            return True
    return False


def _in_file_system(path: Path, mounts: Iterable[Mounted]) -> tuple[str, str] | None:
    """(device, path within its file system) of `path`."""
    best: Mounted | None = None
    for mount in mounts:
        holds = mount.target == "/" or path.is_relative_to(mount.target)
        if holds and (best is None or len(mount.target) >= len(best.target)):
            best = mount
    if best is None:
        return None
    return best.device, os.path.normpath(os.path.join(best.root, path.relative_to(best.target)))


def _unescape(field: str) -> str:
    """Undo mountinfo: it writes blanks and backslashes of a path as three octal digits."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
