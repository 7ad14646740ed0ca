"""Hit ratios of Auto beside the others, trace by trace."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from benchmarks.policies.rivals import LEAST, RIVALS, hit_ratio
from benchmarks.report import Row
from cache_worker.eviction import POLICIES
from cache_worker.simulation import belady
from cache_worker.simulation.replay import Result, replay
from cache_worker.simulation.traces import TRACES

if TYPE_CHECKING:
    from collections.abc import Sequence

SEED = 20_261
"""Thresholds came from seeds 1 to 13 of the prototype and were looked at with seed 101."""
OF_BEST = 0.95
OF_SHARE = 0.97
FLOORS = {  # trace, cache / data: what Auto must hit
    ("4-jobs", 0.5): 0.62,
    ("4-jobs-plans", 0.5): 0.75,
    ("4-jobs-one-order", 0.5): 0.87,
}
TO_OPTIMUM = 0.06
"""How far Auto may be from Belady on Zipf 1.0 with a cache of a tenth."""
LARGE = {"zipf-1.0": 5, "4-jobs-one-order": 5}
"""Times as many chunks in a full run: their goals are stated for 10,000 and 5,000."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One trace with one cache: hit ratios by policy."""

    trace: str
    share: float
    ratios: dict[str, float]
    auto: Result

    @property
    def best(self) -> tuple[str, float]:
        """The best of what knows no future, Auto left out."""
        known = {k: v for k, v in self.ratios.items() if k not in {"Auto", "Belady"}}
        name = max(known, key=known.__getitem__)
        return name, known[name]


def measure(kind: str, share_at: int, chunks: int, seed: int = SEED) -> Cell:
    """One cell. In a process of its own."""
    trace = TRACES[kind](seed, chunks)
    capacity = trace.capacities[share_at]
    auto = replay(trace, POLICIES["Auto"](), capacity)
    ratios = {"Auto": auto.hit_ratio}
    ratios["NoEvict"] = replay(trace, POLICIES["NoEvict"](), capacity).hit_ratio
    # A chunk is one object for them; of shards they know nothing but whole chunks.
    whole = capacity // trace.lengths[0] if trace.lengths else capacity
    plain = replace(trace, lengths=(), read_bytes=())
    ratios |= {
        name: hit_ratio(name, plain, whole) for name in RIVALS if whole >= LEAST.get(name, 1)
    }
    ratios["Belady"] = belady.hit_ratio(trace.slots, whole, trace.warm)
    return Cell(kind, trace.shares[share_at], ratios, auto)


def cells(kinds: Sequence[str], chunks: int, processes: int, *, quick: bool) -> list[Cell]:
    """All caches of these traces."""
    found: list[Cell] = []
    with ProcessPoolExecutor(processes) as pool:
        jobs = [
            pool.submit(measure, kind, at, chunks * (1 if quick else LARGE.get(kind, 1)))
            for kind in kinds
            for at in range(5)
        ]
        started = time.monotonic()
        for job in jobs:
            found.append(job.result())
            if len(found) % 5 == 0:
                seconds = time.monotonic() - started
                print(f"{found[-1].trace}: {seconds:.0f} s", file=sys.stderr, flush=True)
    return found


def rows(found: Sequence[Cell], *, quick: bool) -> list[Row]:
    """Each cell against what it must reach.

    In a quick run without FLOORS and TO_OPTIMUM, which are for more chunks: jobs on few of them
    drift apart by a larger share, and the optimum knows more.
    """
    result: list[Row] = []
    for cell in found:
        auto, (best_name, best) = cell.ratios["Auto"], cell.best
        what = f"{cell.trace}, cache {cell.share:g}: hits of Auto"
        others = ", ".join(f"{name} {value:.3f}" for name, value in cell.ratios.items())
        ratio = auto / best if best else None
        met = auto >= OF_BEST * best
        goal = f">= {OF_BEST:g} x {best_name}"
        if cell.trace == "epochs":
            met, goal = met and auto >= OF_SHARE * cell.share, f"{goal}, >= {OF_SHARE:g} x cache"
        floor = None if quick else FLOORS.get((cell.trace, cell.share))
        if floor is not None:
            met, goal = met and auto >= floor, f"{goal}, >= {floor:g}"
        if cell.trace == "zipf-1.0" and cell.share == 0.1 and not quick:
            met = met and auto >= cell.ratios["Belady"] - TO_OPTIMUM
            goal += f", >= Belady - {TO_OPTIMUM:g}"
        result.append(Row(what, auto, "", best, ratio, goal, met, note=others))
    return result


def markdown(found: Sequence[Cell]) -> str:
    """The tables, as the decision has them."""
    names = ["Auto", "NoEvict", *RIVALS, "Belady"]
    lines: list[str] = []
    for kind in dict.fromkeys(cell.trace for cell in found):
        mine = [cell for cell in found if cell.trace == kind]
        lines += [f"| {kind}: cache | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
        for cell in mine:
            known = [cell.ratios.get(name) for name in names]
            values = " | ".join("" if ratio is None else f"{ratio:.3f}" for ratio in known)
            lines.append(f"| {cell.share:g} | {values} |")
        lines.append("")
    return "\n".join(lines)
