"""`python -m tests.fakes.storm_reader PLAN`: one reader of a mount that others disturb.

PLAN is JSON: {"kind", "mount", "version", "catalog": path, "seed", "seconds"}. The catalog is JSON
{path: [size, [crc32 of each 64 KiB]]}. Whatever is not as the catalog says is wrong. Prints one
JSON line: {"kind", "operations", "wrong": […], "errors": […], "slowest", "slow": [[start, end], …]}
with the moments (time.monotonic) of every call that took longer than SLOW_SECONDS.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import random
import sys
import time
from typing import TYPE_CHECKING, Any

from tests.fakes.reader import BLOCK_BYTES, sums

if TYPE_CHECKING:
    from collections.abc import Callable

SLOW_SECONDS = 0.02
PAUSE_SECONDS = 0.002  # leaves the processors to those who are started again
SMALL_BYTES = 256 << 10
SPAN_BLOCKS = 24
XATTRS = ["user.cacheop.cached", "user.cacheop.version"]  # files from a disk have no etag
WRITES = (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC, os.O_WRONLY | os.O_CREAT)


class Wrong(Exception):  # noqa: N818 - what it is, not an error of ours
    """The mount showed something else than the catalog says."""


class Reader:
    """One kind of reading, done again and again."""

    def __init__(self, plan: dict[str, Any]) -> None:
        with open(plan["catalog"], encoding="utf-8") as file:
            self.catalog: dict[str, tuple[int, list[int]]] = json.load(file)
        self.top = plan["mount"]
        self.version = plan["version"]
        self.rng = random.Random(plan["seed"])
        self.paths = sorted(self.catalog)
        self.slowest = 0.0
        self.slow: list[tuple[float, float]] = []
        self._marked = 0.0
        self.small = [path for path in self.paths if self.catalog[path][0] <= SMALL_BYTES]

    def mark(self, *, begin: bool = False) -> None:
        """Between two calls that may have to wait: note how long the one before took."""
        now = time.monotonic()
        if not begin:
            self.slowest = max(self.slowest, now - self._marked)
            if now - self._marked > SLOW_SECONDS:
                self.slow.append((self._marked, now))
        self._marked = now

    # -- what a reader does, by kind --------------------------------------------------------------

    def read(self) -> None:
        """A span of any file, past the kernel's pages."""
        path, offset, length = self._span()
        fd = self._open(path)
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            self._compare(path, offset, self._pread(fd, offset, length), length)
        finally:
            os.close(fd)

    def mmap(self) -> None:
        """A span of any file through a mapping, its pages dropped before."""
        path, offset, length = self._span()
        if not length:
            return
        fd = self._open(path)
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as mapped:
                parts = []
                for at in range(offset, offset + length, BLOCK_BYTES):
                    parts.append(mapped[at : min(at + BLOCK_BYTES, offset + length)])
                    self.mark()
                self._compare(path, offset, b"".join(parts), length)
        finally:
            os.close(fd)

    def walk(self) -> None:
        """Names, kinds and sizes of everything."""
        found = {}
        for directory, _, names in os.walk(self.top, onerror=_raise):
            self.mark()
            for name in names:
                path = os.path.join(directory, name)
                found[os.path.relpath(path, self.top)] = os.stat(path).st_size
                self.mark()
        want = {path: size for path, (size, _) in self.catalog.items()}
        if found != want:
            raise Wrong(f"the walk differs in {sorted(found.items() ^ want.items())[:6]}")

    def many(self) -> None:
        """Small files, one after the other, several open at once."""
        fds = []
        try:
            for path in self.rng.sample(self.small, 8):
                fd = self._open(path)
                fds.append((path, fd))  # at once: the next open may fail, and all must be closed
            for path, fd in fds:
                size = self.catalog[path][0]
                self._compare(path, 0, self._pread(fd, 0, size + 1), size)
        finally:
            for _, fd in fds:
                os.close(fd)

    def facts(self) -> None:
        """Xattrs, statfs, access, seeks; and every way to write is refused."""
        path = self.rng.choice(self.paths)
        where, size = f"{self.top}/{path}", self.catalog[path][0]
        fd = self._open(path)
        try:
            if size and (os.lseek(fd, 0, os.SEEK_DATA), os.lseek(fd, 0, os.SEEK_HOLE)) != (0, size):
                raise Wrong(f"seeks in {path}")
            if os.fstat(fd).st_size != size:
                raise Wrong(f"size of {path}")
        finally:
            os.close(fd)
        self.mark()
        if os.getxattr(where, "user.cacheop.version").decode() != self.version:
            raise Wrong(f"{path} is of another version")
        if sorted(os.listxattr(where)) != XATTRS:
            raise Wrong(f"{path} has other attributes: {os.listxattr(where)}")
        self.mark()
        usage = os.statvfs(self.top)
        self.mark()
        total = sum(size for size, _ in self.catalog.values())
        if not total <= usage.f_blocks * usage.f_frsize < total + 4096:
            raise Wrong(f"statfs says {usage}")
        if not os.access(where, os.R_OK) or os.access(where, os.W_OK):
            raise Wrong(f"access of {path}")
        try:
            os.close(os.open(where, self.rng.choice(WRITES)))
        except OSError as error:
            if error.errno != errno.EROFS:
                raise
        else:
            raise Wrong(f"{path} was opened to be written")

    # ---------------------------------------------------------------------------------------------

    def _span(self) -> tuple[str, int, int]:
        path = self.rng.choice(self.paths)
        size, right = self.catalog[path]
        first = self.rng.randrange(len(right)) if len(right) > SPAN_BLOCKS else 0
        offset = first * BLOCK_BYTES
        return path, offset, min(self.rng.randrange(1, SPAN_BLOCKS) * BLOCK_BYTES, size - offset)

    def _open(self, path: str) -> int:
        fd = os.open(f"{self.top}/{path}", os.O_RDONLY)
        self.mark()
        return fd

    def _pread(self, fd: int, offset: int, length: int) -> bytes:
        parts = []
        while length:
            part = os.pread(fd, min(length, 1 << 20), offset)
            self.mark()
            if not part:
                break
            parts.append(part)
            offset, length = offset + len(part), length - len(part)
        return b"".join(parts)

    def _compare(self, path: str, offset: int, data: bytes, length: int) -> None:
        first = offset // BLOCK_BYTES
        got = sums(data)
        want = self.catalog[path][1][first : first + len(got)]
        if len(data) != length or got != want:
            kind = "zeros" if data.count(0) == len(data) else "other bytes"
            raise Wrong(f"{path} at {offset}+{length}: {len(data)} bytes, {kind}")


def _raise(error: OSError) -> None:
    raise error


def run(plan: dict[str, Any]) -> dict[str, Any]:
    reader = Reader(plan)
    act: Callable[[], None] = getattr(reader, plan["kind"])
    wrong: list[str] = []
    errors: list[str] = []
    operations = 0
    stop = time.monotonic() + plan["seconds"]
    while time.monotonic() < stop:
        reader.mark(begin=True)
        try:
            act()
        except Wrong as error:
            wrong.append(str(error))
        except OSError as error:
            errors.append(f"{plan['kind']}: {error}")
        reader.mark()
        operations += 1
        time.sleep(PAUSE_SECONDS)
    return {
        "kind": plan["kind"],
        "operations": operations,
        "wrong": wrong,
        "errors": errors,
        "slowest": reader.slowest,
        "slow": reader.slow,
    }


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))))
