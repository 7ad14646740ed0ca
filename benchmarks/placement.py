"""Placing chunks on members: `./dev run python -m benchmarks.placement`. Pure computing."""

from __future__ import annotations

import argparse
import math
import resource
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from benchmarks.report import Row, at_most, show
from cache_worker.cluster import bulk_placement
from cache_worker.cluster.placement import Seats
from cache_worker.cluster.view import Member

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from numpy.typing import NDArray

SLICE = 1_000_000
"""Chunks held at a time."""
CHUNKS_PER_FILE = 4
SIGMAS = 5
SCALAR_MEMBERS = (4, 16, 100, 1000)
SCALAR_SECONDS = 0.3
ROUNDS = 5


class Placed(NamedTuple):
    """What placing all chunks came to, before and after one member left."""

    seconds: float
    """Of both times."""
    owned: NDArray[np.int64]
    moved: int
    others_moved: int


def rows(members: int = 1_000, chunks: int = 10_000_000) -> list[Row]:
    """Many chunks with numpy, in slices; one lookup in plain Python, for clusters of some sizes."""
    leaver = members // 2
    before_mib = peak_mib()
    placed = place(members, chunks, leaver)
    more_mib = peak_mib() - before_mib
    mean = chunks / members
    bound = 100 * SIGMAS / math.sqrt(mean)
    off = 100 * float(np.abs(placed.owned / mean - 1).max())
    moved_off = 100 * abs(placed.moved / mean - 1)
    what = f"{members:,} members, {chunks:,} chunks"
    return [
        at_most(f"placing a chunk, {what}", "us", [placed.seconds / 2 / chunks * 1e6], 20),
        at_most(f"memory for it, {SLICE:,} chunks at a time", "MiB", [more_mib], 256),
        at_most("member farthest from an equal share", "%", [off], bound),
        at_most("one leaves: moved, off 1/N by", "%", [moved_off], bound),
        at_most("one leaves: chunks of others moved", "chunks", [placed.others_moved], 0),
        *(scalar(weights, count) for weights in (1, 4) for count in SCALAR_MEMBERS),
    ]


def place(members: int, chunks: int, leaver: int) -> Placed:
    """Place all chunks on `members` equal members, and again without one of them."""
    everyone = cluster(members)
    seats = Seats(everyone)
    without = Seats(m for m in everyone if m is not everyone[leaver])
    numbers = {m.node: i for i, m in enumerate(seats.owning)}
    gone = numbers[everyone[leaver].node]
    renumbered = np.array([numbers[m.node] for m in without.owning], np.int32)
    seconds, moved, others_moved = 0.0, 0, 0
    owned = np.zeros(members, np.int64)
    for content, chunk in files(chunks):
        began = time.perf_counter()
        before = bulk_placement.owners(seats, bulk_placement.places(content, chunk))
        after = bulk_placement.owners(without, bulk_placement.places(content, chunk))
        seconds += time.perf_counter() - began
        owned += np.bincount(before, minlength=members)
        differs = before != renumbered[after]
        moved += int(differs.sum())
        others_moved += int((differs & (before != gone)).sum())
    return Placed(seconds, owned, moved, others_moved)


def files(chunks: int) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Content keys and chunk numbers, in slices."""
    random = np.random.default_rng(6)
    for first in range(0, chunks, SLICE):
        count = min(SLICE, chunks - first)
        keys = random.integers(0, 256, (-(-count // CHUNKS_PER_FILE), 16), np.uint8)
        number = np.arange(count, dtype=np.uint64)
        yield np.repeat(keys, CHUNKS_PER_FILE, axis=0)[:count], number % np.uint64(CHUNKS_PER_FILE)


def scalar(weights: int, members: int) -> Row:
    """One owner at a time, as the worker asks."""
    seats = Seats(cluster(members, weights))
    keys = np.random.default_rng(7).bytes(16 * 1024)
    contents = [keys[at : at + 16] for at in range(0, len(keys), 16)]
    runs = []
    for _ in range(ROUNDS):
        count, began = 0, time.perf_counter()
        while time.perf_counter() - began < SCALAR_SECONDS / ROUNDS:
            for content in contents[:64]:
                seats.owner(content, count & 7)
            count += 64
        runs.append((time.perf_counter() - began) / count * 1e6)
    sizes = f"{weights} sizes" if weights > 1 else "equal"
    return measured(f"one lookup in plain Python, {members:,} members, {sizes}", "us", runs)


def cluster(members: int, weights: int = 1) -> list[Member]:
    """Members of one size or more."""
    return [
        Member(f"node-{i}", capacity_bytes=(1 + i % weights) << 40, joined=i)
        for i in range(members)
    ]


def peak_mib() -> float:
    """The most memory this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(what: str, unit: str, values: list[float]) -> Row:
    """A median without a goal."""
    row = at_most(what, unit, values, math.inf)
    return Row(row.what, row.value, unit, None, None, "", None, row.spread)


def main() -> int:
    """Print the table. 1 if a goal was missed."""
    parser = argparse.ArgumentParser(prog="benchmarks.placement", description=__doc__)
    parser.add_argument("--members", type=int, default=1_000)
    parser.add_argument("--chunks", type=int, default=10_000_000)
    chosen = parser.parse_args()
    found = rows(chosen.members, chosen.chunks)
    show("placement", found)
    return 0 if all(row.met is not False for row in found) else 1


if __name__ == "__main__":
    sys.exit(main())
