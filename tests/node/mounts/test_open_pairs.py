"""One inode opened twice, in whatever way, with anything in between: right bytes, never an errno.

The kernel lets an inode be open in one I/O mode and with one backing file only; an OPEN answered in
another way fails with EIO. So each way to open (plain, O_DIRECT) is tried on each kind of file
(cached wholly, partly, not at all; of one chunk, of several), before and after each event.
"""

from __future__ import annotations

import mmap
import os
import random
import time
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fakes.running_node import RunningNode, drop_kernel_caches

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.node,
    pytest.mark.skipif(
        os.geteuid() != 0 or not Path("/dev/fuse").exists(), reason="needs root and /dev/fuse"
    ),
]

CHUNK_BYTES = 8 << 20
SIZES = {"small": 60_000, "big": CHUNK_BYTES + 200_000}
STATES = ("absent", "whole", "first chunk")
FLAGS = {"plain": os.O_RDONLY, "direct": os.O_RDONLY | os.O_DIRECT}
EVENTS = ("nothing", "load", "evict", "evict and load", "mount", "supervisor", "holder", "worker")
SPAN_BYTES = 16_384
CASES = [
    f"{size}.{state}.{first}.{second}"
    for size, state, first, second in product(SIZES, STATES, FLAGS, FLAGS)
    if (size, state) != ("small", "first chunk")
]


@pytest.fixture(scope="module", params=["Passthrough", "ZeroOpen", "Fuse"])
def node(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningNode]:
    directory = tmp_path_factory.mktemp("pairs")
    rng = random.Random(2)
    (directory / "origin").mkdir()
    for case in CASES:
        (directory / "origin" / case).write_bytes(rng.randbytes(SIZES[case.split(".")[0]]))
    (directory / "mnt").mkdir()
    mounts = [{"target": str(directory / "mnt"), "mode": request.param, "version": ""}]
    node = RunningNode(directory / "node", f"file://{directory}/origin", mounts)
    try:
        node.start()
        yield node
    finally:
        node.close()


@pytest.fixture
def want(node: RunningNode) -> dict[str, bytes]:
    origin = node.directory.parent / "origin"
    return {case: (origin / case).read_bytes() for case in CASES}


def prepare(node: RunningNode) -> None:
    """Bring every file into the state that its name tells."""
    node.call("evict")
    drop_kernel_caches(3)
    node.call("load", paths=[case for case in CASES if case.split(".")[1] == "whole"])
    version = node.status()["version"]
    rows = {path: row for row, path in enumerate(rows_of(node, version))}
    for case in CASES:
        if case.split(".")[1] == "first chunk":
            node.call("read", version=version, row=rows[case], offset=0, length=1)


def rows_of(node: RunningNode, version: str) -> list[str]:
    from cacheop.api import names
    from cacheop.api.index import Index

    index = Index((node.root / names.index_path(version)).read_bytes())
    return [index.path(row) for row in range(index.rows)]


def happen(node: RunningNode, event: str) -> None:
    if event == "load":
        node.call("load")
    elif event == "evict":
        node.call("evict")
    elif event == "evict and load":
        node.call("evict")
        node.call("load")
    elif event != "nothing":
        node.replace(event)


def check(fd: int, want: bytes, where: str) -> None:
    """The first and the last bytes of a file, past the kernel's pages."""
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    buffer = mmap.mmap(-1, SPAN_BYTES)  # aligned, as O_DIRECT wants it
    for offset in (0, (len(want) - 1) // SPAN_BYTES * SPAN_BYTES):
        count = os.preadv(fd, [buffer], offset)
        assert buffer[:count] == want[offset : offset + SPAN_BYTES], f"{where} at {offset}"


@pytest.mark.parametrize("event", EVENTS)
def test_every_pair_of_opens_of_one_inode(node: RunningNode, want: dict[str, bytes], event: str):
    prepare(node)
    top, held, wrong = node.targets[0], {}, []
    try:
        for case in CASES:
            _, _, first, _ = case.split(".")
            held[case] = os.open(top / case, FLAGS[first])
            check(held[case], want[case], case)
        happen(node, event)
        for case in CASES:
            _, _, first, second = case.split(".")
            try:
                fd = os.open(top / case, FLAGS[second])
                try:
                    check(fd, want[case], f"second open of {case}")
                    check(held[case], want[case], f"first open of {case}")
                    os.close(held.pop(case))
                    check(fd, want[case], f"second open of {case}, the first closed")
                finally:
                    os.close(fd)
                time.sleep(0)  # nobody has it open: its mode may change now
                fd = os.open(top / case, FLAGS[first])
                try:
                    check(fd, want[case], f"third open of {case}")
                finally:
                    os.close(fd)
            except (OSError, AssertionError) as error:
                wrong.append(f"{case}: {error}")
    finally:
        for fd in held.values():
            os.close(fd)
    assert wrong == []
