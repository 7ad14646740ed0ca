"""What a mount is: the object in messages, on the command line and in `<root>/mounts/<id>.json`.

The cache's user can write those files, so nothing in them is believed but what mountinfo confirms.
"""

from __future__ import annotations

import contextlib
import json
import os

from cache_worker.holder import syscalls
from cacheop.api import mount_modes, names
from cacheop.api.errors import ProtocolError

ROWS_MAX = (1 << 31) - 4
RECORD_MAX_BYTES = 65536
_HEXADECIMAL = frozenset("0123456789abcdef")
VERSION_MAX_CHARACTERS = 128


class Mount:
    """One mount, as everybody may know it."""

    __slots__ = ("device", "grace_seconds", "id", "mode", "rows", "target", "version", "why")

    def __init__(
        self,
        *,
        id: str,  # noqa: A002 - its name in the messages
        target: str,
        mode: str,
        why: str,
        version: str,
        rows: int,
        device: str,
        grace_seconds: float,
    ) -> None:
        self.id = id
        self.target = target
        self.mode = mode
        """Native, ZeroOpen, Passthrough or Fuse."""
        self.why = why
        self.version = version
        self.rows = rows
        self.device = device
        """major:minor, as mountinfo has it."""
        self.grace_seconds = grace_seconds

    def as_json(self) -> dict[str, object]:
        """What `parse` reads."""
        return {
            "id": self.id,
            "target": self.target,
            "mode": self.mode,
            "why": self.why,
            "version": self.version,
            "rows": self.rows,
            "device": self.device,
            "grace_seconds": self.grace_seconds,
        }


def parse(raw: object) -> Mount:
    """The mount that `raw` (from JSON) is. Raises ProtocolError."""
    if not isinstance(raw, dict):
        raise ProtocolError("a mount that is not a JSON object")
    text = {key: raw.get(key) for key in ("id", "target", "mode", "why", "version", "device")}
    rows, grace_seconds = raw.get("rows"), raw.get("grace_seconds")
    if (
        not all(isinstance(value, str) for value in text.values())
        or not is_id(str(text["id"]))
        or not str(text["target"]).startswith("/")
        or "\0" in str(text["target"])
        or text["mode"] not in mount_modes.MODES
        or not is_version(str(text["version"]))
        or not isinstance(rows, int)
        or not is_rows(rows)
        or not isinstance(grace_seconds, int | float)
    ):
        raise ProtocolError(f"a mount that is not whole: {str(raw)[:200]}")
    strings = {key: str(value) for key, value in text.items()}
    return Mount(rows=rows, grace_seconds=float(grace_seconds), **strings)


def is_id(text: str) -> bool:
    """Whether `text` is m0, m1 and so on."""
    return text[:1] == "m" and text[1:].isascii() and text[1:].isdigit() and len(text) < 10


def is_version(text: str) -> bool:
    """Whether `text` is a version, and so a safe name of a directory."""
    return 0 < len(text) <= VERSION_MAX_CHARACTERS and _HEXADECIMAL.issuperset(text)


def is_rows(rows: object) -> bool:
    """Whether a version can have that many rows."""
    return isinstance(rows, int) and not isinstance(rows, bool) and 0 <= rows <= ROWS_MAX


def open_directory(root: int) -> int:
    """`<root>/mounts`, made if need be, as an fd. Raises OSError."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(names.MOUNTS_DIR, 0o755, dir_fd=root)
    return syscalls.openat2(root, names.MOUNTS_DIR, os.O_RDONLY | os.O_DIRECTORY)


def load(directory: int) -> list[Mount]:
    """The records there; what is not one is passed over."""
    found = []
    for name in sorted(os.listdir(directory)):
        stem, _, suffix = name.partition(".")
        if suffix != "json" or not is_id(stem):
            continue
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
            fd = syscalls.openat2(directory, name, flags)
            try:
                mount = parse(json.loads(os.read(fd, RECORD_MAX_BYTES)))
            finally:
                os.close(fd)
        except (OSError, ValueError, RecursionError):
            continue
        if mount.id == stem:
            found.append(mount)
    return found


def save(directory: int, mount: Mount) -> None:
    """Replace the record of `mount`; the worker may read it. Raises OSError."""
    new = f".{mount.id}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new, dir_fd=directory)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(new, flags, 0o644, dir_fd=directory)
    try:
        os.write(fd, json.dumps(mount.as_json()).encode())
    finally:
        os.close(fd)
    os.replace(new, f"{mount.id}.json", src_dir_fd=directory, dst_dir_fd=directory)


def remove(directory: int, mount_id: str) -> None:
    """The mount is no more. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{mount_id}.json", dir_fd=directory)
