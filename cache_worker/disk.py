"""The syscalls of the store, each with a label that says its purpose.

So a test can make exactly one of them fail (tests/fakes/disk.py).
"""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING

from cacheop.api.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_FALLOC_FL_KEEP_SIZE, _FALLOC_FL_PUNCH_HOLE = 1, 2


def _check(result: int, what: str) -> None:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")


class Disk:
    """The real thing. Every method may raise OSError."""

    def open(self, label: str, path: str, flags: int) -> int:
        """open(2) with mode 0644; the caller owns the fd."""
        del label
        return os.open(path, flags | os.O_CLOEXEC, 0o644)

    def make_directory(self, label: str, path: str) -> None:
        """Create a directory and its parents."""
        del label
        os.makedirs(path, mode=0o755, exist_ok=True)

    def write_at(self, label: str, fd: int, data: memoryview, offset: int) -> None:
        """Write all of `data`."""
        del label
        while data:
            written = os.pwrite(fd, data, offset)
            data = data[written:]
            offset += written

    def read_at(self, label: str, fd: int, length: int, offset: int) -> bytes:
        """Up to `length` bytes, less only at the end of the file."""
        del label
        parts: list[bytes] = []
        while length:
            part = os.pread(fd, length, offset)
            if not part:
                break
            parts.append(part)
            offset += len(part)
            length -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def set_size(self, label: str, fd: int, size_bytes: int) -> None:
        """Make a sparse file of that size."""
        del label
        os.ftruncate(fd, size_bytes)

    def allocate(self, label: str, fd: int, offset: int, length: int) -> None:
        """Have written blocks (of zeros) for a range, so that a later write meets no full disk."""
        del label
        zeros = bytes(min(length, 1 << 20))
        while length:
            written = os.pwrite(fd, zeros[:length], offset)
            offset += written
            length -= written

    def punch(self, label: str, fd: int, offset: int, length: int) -> None:
        """Give the blocks of a range back to the file system; the size stays."""
        del label
        _check(
            _libc.fallocate(
                fd,
                _FALLOC_FL_KEEP_SIZE | _FALLOC_FL_PUNCH_HOLE,
                ctypes.c_long(offset),
                ctypes.c_long(length),
            ),
            "fallocate",
        )

    def link(self, label: str, source: str, path: str) -> None:
        """Hard link."""
        del label
        os.link(source, path)

    def unlink(self, label: str, path: str) -> None:
        """Remove a name; one that is not there is fine."""
        del label
        try:
            os.unlink(path)
        except FileNotFoundError:
            return

    def replace(self, label: str, path: str, data: bytes) -> None:
        """Put a small file in place whole, or leave the old one."""
        del label
        temporary = f"{path}.tmp"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            os.write(fd, data)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path)

    def remove_tree(self, label: str, path: str) -> None:
        """Remove a directory of our own and all below it; what is gone already is fine."""
        del label
        for directory, names, files in os.walk(path, topdown=False):
            _remove(os.unlink, (os.path.join(directory, name) for name in files))
            _remove(os.rmdir, (os.path.join(directory, name) for name in names))
        _remove(os.rmdir, [path])

    def sync(self, label: str, fd: int) -> None:
        """syncfs(2): everything written to the file system of `fd` is on its device."""
        del label
        _check(_libc.syncfs(fd), "syncfs")

    def space(self, label: str, path: str) -> tuple[int, int]:
        """(bytes available to us, bytes in all) of the file system of `path`."""
        del label
        found = os.statvfs(path)
        return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize


def _remove(call: object, paths: Iterable[str]) -> None:
    for path in paths:
        try:
            call(path)  # type: ignore[operator]
        except FileNotFoundError:
            continue


def require_writable(path: Path) -> None:
    """Raise StoreError if `path` cannot be made or written."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".probe-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise StoreError(
            f"cannot write to the cache directory {path}: {error.strerror}",
            hint="Name another one, or change its owner",
        ) from error
