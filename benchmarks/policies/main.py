"""`./dev bench-policies [--quick] [TRACE …]`: eviction policies over traces, and what they cost."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace

from benchmarks.policies import cost, tables
from benchmarks.report import RESULTS, show, write
from cache_worker.simulation.traces import TRACES


def main() -> int:
    """Print the tables, write results/policies.json and .md. 1 if a goal was missed."""
    parser = argparse.ArgumentParser(prog="./dev bench-policies", description=__doc__)
    parser.add_argument("traces", nargs="*", metavar="TRACE", help=f"of: {', '.join(TRACES)}")
    parser.add_argument(
        "--quick", action="store_true", help="a quarter of the chunks; a minute or two"
    )
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--no-cost", action="store_true", help="hits only")
    chosen = parser.parse_args()
    unknown = set(chosen.traces) - set(TRACES)
    if unknown:
        parser.error(f"no such trace: {', '.join(sorted(unknown))}")
    chunks = 500 if chosen.quick else 2000
    rows = [] if chosen.no_cost else cost.measure(rounds=200 if chosen.quick else 1000)
    found = tables.cells(
        chosen.traces or list(TRACES), chunks, chosen.processes, quick=chosen.quick
    )
    rows += tables.rows(found, quick=chosen.quick)
    title = f"eviction policies, traces of {chunks:,} chunks, seed {tables.SEED}"
    show(title, [replace(row, note="") for row in rows])
    print(tables.markdown(found))
    print(f"wrote {write('policies', rows)}")
    table = RESULTS / "policies.md"
    table.write_text(tables.markdown(found), encoding="utf-8")
    print(f"wrote {table}")
    return 0 if all(row.met is not False for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
