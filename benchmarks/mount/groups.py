"""Memory limits by cgroup, version 1 and 2 alike."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

V1 = Path("/sys/fs/cgroup/memory")
V2 = Path("/sys/fs/cgroup")
EMPTY_SECONDS = 10.0


class Group:
    """A cgroup with a limit on memory, page cache included."""

    def __init__(self, path: Path, limit_bytes: int) -> None:
        self.path = path
        self.limit_bytes = limit_bytes
        self._version = 1 if path.is_relative_to(V1) else 2

    @property
    def procs(self) -> str:
        """Write a pid here to put a process in."""
        return str(self.path / "cgroup.procs")

    def make(self) -> None:
        """The group with its limit. Raises OSError where memory is not controlled by cgroups."""
        if self._version == 2:
            (self.path.parent / "cgroup.subtree_control").write_text("+memory")
        self.path.mkdir()
        name = "memory.limit_in_bytes" if self._version == 1 else "memory.max"
        (self.path / name).write_text(str(self.limit_bytes))

    def kills(self) -> int:
        """How many processes the kernel has killed here for want of memory."""
        name = "memory.oom_control" if self._version == 1 else "memory.events"
        told = dict(line.split() for line in (self.path / name).read_text().splitlines())
        return int(told["oom_kill"])

    def peak_bytes(self) -> int:
        """The most it ever held, page cache included; 0 where the kernel does not say."""
        name = "memory.max_usage_in_bytes" if self._version == 1 else "memory.peak"
        try:
            return int((self.path / name).read_text())
        except OSError:
            return 0

    def remove(self) -> None:
        """Remove it; its processes were ended by those who started them."""
        end = time.monotonic() + EMPTY_SECONDS
        while True:
            try:
                self.path.rmdir()
            except FileNotFoundError:
                return
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)
            else:
                return


@contextmanager
def limited(name: str, limit_bytes: int) -> Iterator[Group]:
    """A group while the block runs."""
    parent = V1 if V1.is_dir() else V2
    group = Group(parent / f"cacheop-bench-{os.getpid()}-{name}", limit_bytes)
    group.make()
    try:
        yield group
    finally:
        group.remove()
