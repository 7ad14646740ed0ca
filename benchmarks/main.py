"""`./dev bench [--quick] [NAME …]`: every figure that the README states, measured here and now."""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.report import Row, show, write
from benchmarks.setting import setting

PARTS = ("fill", "reads", "epochs", "start", "memory", "manifest")


def main() -> int:
    """Run the parts, print the table, write results/bench.json. 1 if a goal was missed."""
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="NAME", help=f"of: {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="smaller, at most a minute")
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"), help="a real disk")
    chosen = parser.parse_args()
    unknown = set(chosen.parts) - set(PARTS)
    if unknown:
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    rows: list[Row] = []
    with (
        tempfile.TemporaryDirectory(prefix="cacheop-bench-", dir=chosen.directory) as directory,
        setting(Path(directory), quick=chosen.quick) as place,
    ):
        for name in chosen.parts or PARTS:
            started = time.monotonic()
            print(f"{name} …", file=sys.stderr, flush=True)
            rows += importlib.import_module(f"benchmarks.{name}").measure(place)
            print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    show("cacheop, quick run" if chosen.quick else "cacheop", rows)
    print(f"wrote {write('bench', rows)}")
    return 0 if all(row.met is not False for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
