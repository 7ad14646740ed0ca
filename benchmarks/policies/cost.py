"""What a policy costs the worker: time and bytes, at a million chunks."""

from __future__ import annotations

import statistics
import time
import tracemalloc
from random import Random
from typing import TYPE_CHECKING

from benchmarks.report import Row, at_most
from cache_worker.eviction import POLICIES
from cache_worker.eviction.policy import Held

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from cache_worker.eviction.policy import Policy

CHUNKS = 1_000_000
CHUNK_BYTES = 8 << 20
READS, VICTIMS = 1000, 64
LIMIT_US, LIMIT_BYTES = 2.0, 16.0


class _Half(Held):
    """Every second chunk is here. Samples are the store's work: made before the clock runs."""

    def __init__(self) -> None:
        self._dice = Random(1)
        self._next: list[int] = []

    def prepare(self, count: int) -> None:
        """As victims.py takes them: some of a window, from sixteen windows."""
        self._next = []
        for _ in range(16):
            first = 2 * self._dice.randrange(CHUNKS // 2 - 256)
            window = range(first, first + 256, 2)
            self._next += self._dice.sample(window, count // 16)

    def sample(self, count: int) -> Sequence[int]:
        return self._next[:count]

    def may_go(self, slot: int) -> bool:
        return slot % 2 == 0

    def lengths(self, slots: Sequence[int]) -> Sequence[int]:
        return (CHUNK_BYTES,) * len(slots)

    def copies(self, slots: Sequence[int]) -> Collection[int]:
        del slots
        return ()


def measure(*, rounds: int) -> list[Row]:
    """Time of reads told a thousand at a time and of victims 64 at a time; memory of Auto."""
    order = Random(2)
    passes = list(range(CHUNKS))
    order.shuffle(passes)
    skewed = [int(CHUNKS * order.random() ** 6) for _ in range(rounds * READS)]
    rows: list[Row] = []
    for label, jobs, reads in (
        ("one job, in passes", 1, passes),
        ("one job, skewed", 1, skewed),
        ("four jobs", 4, passes),
    ):
        tracemalloc.start()
        policy = POLICIES["Auto"]()
        for job in range(jobs):
            policy.joined(job, range(CHUNKS))
        held_bytes = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        read_us = _reads(policy, jobs, reads, rounds)
        rows.append(at_most(f"Auto, {label}: a read of 1,000", "us", read_us, LIMIT_US))
        rows.append(at_most(f"Auto, {label}: a victim of 64", "us", _victims(policy), LIMIT_US))
        size = [held_bytes / CHUNKS]
        rows.append(at_most(f"Auto, {label}: memory", "bytes a chunk", size, LIMIT_BYTES))
    return rows


def _reads(policy: Policy, jobs: int, reads: Sequence[int], rounds: int) -> list[float]:
    found: list[float] = []
    for at in range(min(rounds, len(reads) // READS)):
        batch = reads[at * READS : (at + 1) * READS]
        started = time.perf_counter()
        policy.read(at % jobs, batch)
        found.append((time.perf_counter() - started) / READS * 1e6)
    return _by_tens(found)


def _victims(policy: Policy) -> list[float]:
    held = _Half()
    found: list[float] = []
    for _ in range(200):
        held.prepare(256)
        started = time.perf_counter()
        chosen = policy.victims(held, VICTIMS * CHUNK_BYTES)
        found.append((time.perf_counter() - started) / VICTIMS * 1e6)
        if len(chosen) != VICTIMS:
            raise RuntimeError(f"{len(chosen)} victims instead of {VICTIMS}")
    return _by_tens(found)


def _by_tens(values: Sequence[float]) -> list[float]:
    """Means of ten in a row: amortised, as the worker pays it."""
    return [statistics.mean(values[at : at + 10]) for at in range(0, len(values) - 9, 10)]
