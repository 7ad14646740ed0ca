"""`python -m benchmarks.mount.fleet <JOB`: reader processes that start together; one JSON line.

The loop is the same for every system and does nothing but system calls into one buffer. A process
of its own, so that what the benchmark holds in memory does not slow the forks.
"""

from __future__ import annotations

import gc
import hashlib
import json
import mmap
import os
import random
import sys
import time
from dataclasses import asdict, dataclass
from resource import RUSAGE_SELF, getrusage
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BLOCK_BYTES = 1 << 20

Item = tuple[str, int, int]
"""Path, offset, length: a piece of a file, or all of it."""


@dataclass(frozen=True, slots=True)
class Job:
    """What the readers do together: the items are dealt out among them, each once."""

    kind: str
    """read, map, stat or check."""
    root: str
    items: Sequence[Item]
    readers: int = 1
    seed: int = 1
    procs: Sequence[str] = ()
    """The cgroup.procs files of the groups that the readers live in."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of a Job: from the first reader's start to the last one's end."""

    seconds: float
    files: int
    bytes: int
    cpu_seconds: float
    """Of the readers alone."""
    checksums: Sequence[str] = ()


def block() -> mmap.mmap:
    """A buffer that begins with a page.

    A large bytearray begins 16 bytes behind one. Copying a page there takes AMD's Zen 3 three times
    as long (its REP MOVSB sees an overlap), which would hide what the systems differ in.
    """
    return mmap.mmap(-1, BLOCK_BYTES)


def read(items: Sequence[Item]) -> int:
    """Open, read, close."""
    buffer = block()
    into, opened, readv, close, total = [buffer], os.open, os.preadv, os.close, 0
    for path, offset, length in items:
        fd = opened(path, os.O_RDONLY)
        at, end = offset, offset + length
        while at < end:
            got = readv(fd, into, at)
            if not got:
                break
            at += got
        total += at - offset
        close(fd)
    return total


def touch(items: Sequence[Item]) -> int:
    """One byte of every page of a mapping."""
    total, buffer = 0, memoryview(block())
    for path, _, length in items:
        fd = os.open(path, os.O_RDONLY)
        with mmap.mmap(fd, length, access=mmap.ACCESS_READ) as mapped:
            os.close(fd)
            with memoryview(mapped) as view:
                for at in range(0, length, BLOCK_BYTES):
                    piece = view[at : at + BLOCK_BYTES]
                    buffer[: len(piece)] = piece
                    total += len(piece)
                    piece.release()
    return total


def look(items: Sequence[Item]) -> int:
    """Only attributes: what makes metadata warm."""
    return sum(os.stat(path).st_size for path, _, _ in items)


def check(items: Sequence[Item]) -> tuple[int, str]:
    """(bytes, a checksum over all of them, in order)."""
    total, digest, buffer = 0, hashlib.sha256(), block()
    for path, offset, length in items:
        with open(path, "rb", buffering=0) as file:
            file.seek(offset)
            left = length
            while left and (got := file.readinto(memoryview(buffer)[: min(left, BLOCK_BYTES)])):
                digest.update(memoryview(buffer)[:got])
                left -= got
                total += got
    return total, digest.hexdigest()


def deal(job: Job) -> list[list[Item]]:
    """Each reader's items, with whole paths. Always the same for the same seed."""
    items = [(f"{job.root}/{path}", offset, length) for path, offset, length in job.items]
    if job.kind != "check":
        random.Random(job.seed).shuffle(items)
    return [items[reader :: job.readers] for reader in range(job.readers)]


def reader(kind: str, items: Sequence[Item], ready: int, start: int, told: int) -> None:
    """One reader process: say ready, wait for the start, work, tell."""
    loops: dict[str, Callable[[Sequence[Item]], int]] = {"read": read, "map": touch, "stat": look}
    gc.disable()
    os.write(ready, b"r")
    os.read(start, 1)  # ends when the last writing end is closed: for all at once
    before, began = getrusage(RUSAGE_SELF), time.monotonic()
    total, checksum = check(items) if kind == "check" else (loops[kind](items), "")
    ended, after = time.monotonic(), getrusage(RUSAGE_SELF)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    os.write(told, json.dumps([began, ended, total, cpu, checksum]).encode())


def run(job: Job) -> Ran:
    """Fork the readers, start them together, gather what they tell. Raises RuntimeError."""
    shares = deal(job)
    ready, start = os.pipe(), os.pipe()
    tells = []
    for share in shares:
        told = os.pipe()
        if os.fork() == 0:
            code = 1
            try:
                os.close(start[1])
                reader(job.kind, share, ready[1], start[0], told[1])
                code = 0
            finally:
                sys.stderr.flush()
                os._exit(code)
        os.close(told[1])
        tells.append(told[0])
    os.close(ready[1])
    waiting = len(shares)
    while waiting and (got := os.read(ready[0], waiting)):
        waiting -= len(got)
    os.close(start[1])
    found = []
    for told_fd in tells:
        with open(told_fd, "rb") as file:
            text = file.read()
        if not text:
            raise RuntimeError(f"a reader of {job.root} failed; what it said is above")
        found.append(json.loads(text))
    for _ in shares:
        os.wait()
    began, ended, total, cpu, checksums = zip(*found, strict=True)
    return Ran(max(ended) - min(began), len(job.items), sum(total), sum(cpu), checksums)


def main() -> int:
    """Job as JSON on standard input, Ran as JSON on standard output."""
    job = Job(**json.load(sys.stdin))
    for procs in job.procs:
        with open(procs, "w", encoding="utf-8") as file:
            file.write(str(os.getpid()))
    gc.freeze()
    print(json.dumps(asdict(run(job))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
