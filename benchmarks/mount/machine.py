"""What only root may do to the machine, and what the kernel tells of processes and pages."""

from __future__ import annotations

import ctypes
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

_CACHESTAT = 451
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

_libc = ctypes.CDLL(None, use_errno=True)


def drop_caches() -> None:
    """Write back, then forget pages, dentries and inodes, of every file system alike."""
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
        file.write("3")


def read_ahead(directory: Path) -> None:
    """Have all files below `directory` in the page cache."""
    buffer = bytearray(1 << 20)
    for path in directory.rglob("*"):
        if path.is_file():
            with path.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of processes with all their threads; 0 for those that are gone."""
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS_PER_SECOND


def cpu_by_name(processes: Mapping[str, Iterable[int]]) -> dict[str, float]:
    """The same for groups of processes."""
    return {name: cpu_seconds(pids) for name, pids in processes.items()}


def processes_with(word: str) -> list[int]:
    """The processes that have `word` somewhere in their command line."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                with open(f"/proc/{entry}/cmdline", "rb") as file:
                    if word.encode() in file.read():
                        found.append(int(entry))
            except OSError:
                continue
    return found


def cached_bytes(path: str) -> int:
    """How much of a file is in the page cache. See cachestat(2), Linux >= 6.5."""
    found = (ctypes.c_uint64 * 5)()
    fd = os.open(path, os.O_RDONLY)
    try:
        whole = (ctypes.c_uint64 * 2)(0, 0)
        if _libc.syscall(_CACHESTAT, fd, ctypes.byref(whole), ctypes.byref(found), 0):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), path)
    finally:
        os.close(fd)
    return int(found[0]) * PAGE_BYTES


def cached_bytes_of_all(paths: Iterable[str]) -> int:
    """The same of many; one inode that has several names counts once."""
    seen: dict[tuple[int, int], str] = {}
    for path in paths:
        about = os.stat(path)
        if stat.S_ISREG(about.st_mode):
            seen[about.st_dev, about.st_ino] = path
    return sum(cached_bytes(path) for path in seen.values())
