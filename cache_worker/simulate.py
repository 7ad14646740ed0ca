"""`python -m cache_worker simulate TRACE`: what each policy hits, against Belady's optimum.

TRACE is a file (see simulation/trace.py) or a kind of simulation/traces.py, made from --seed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cache_worker.eviction import POLICIES
from cache_worker.simulation import belady
from cache_worker.simulation.replay import replay
from cache_worker.simulation.trace import Trace, parse
from cache_worker.simulation.traces import TRACES
from cacheop.api.errors import UserError


def load(name: str, seed: int, chunks: int) -> Trace:
    """A trace from a file, or made. UserError when there is neither."""
    if name in TRACES:
        return TRACES[name](seed, chunks)
    try:
        with Path(name).open(encoding="utf-8") as lines:
            return parse(name, lines)
    except OSError as error:
        raise UserError(
            f"cannot read the trace {name}: {error.strerror}",
            hint=f"Name a file, or one of: {', '.join(TRACES)}",
        ) from error


def table(trace: Trace) -> dict[str, list[float]]:
    """Hit ratios by policy for each of the trace's caches; Belady's for chunks of one size."""
    sizes = trace.capacities
    found = {
        name: [replay(trace, make(), size).hit_ratio for size in sizes]
        for name, make in POLICIES.items()
    }
    if not trace.lengths:
        found["Belady"] = [belady.hit_ratio(trace.slots, size, trace.warm) for size in sizes]
    return found


def main(arguments: list[str]) -> int:
    """Print the table of one trace."""
    parser = argparse.ArgumentParser(prog="python -m cache_worker simulate", description=__doc__)
    parser.add_argument("trace", help=f"a file, or one of: {', '.join(TRACES)}")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--chunks", type=int, default=2000, help="of a trace that is made")
    chosen = parser.parse_args(arguments)
    try:
        trace = load(chosen.trace, chosen.seed, chosen.chunks)
    except UserError as error:
        print(f"simulate: {error}", file=sys.stderr)  # noqa: T201 - this is a command
        return 2
    rows = table(trace)
    heads = "".join(f"{share:>8.2f}" for share in trace.shares)
    print(f"{trace.name}: {len(trace.slots):,} reads; hit ratio by cache / data")  # noqa: T201
    print(f"{'':<10}{heads}")  # noqa: T201
    for name, values in rows.items():
        print(f"{name:<10}" + "".join(f"{value:>8.3f}" for value in values))  # noqa: T201
    return 0
