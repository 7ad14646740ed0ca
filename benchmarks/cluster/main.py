"""`./dev bench-cluster [--quick] [NAME …]`: the cluster on namespaces of this machine, as root.

Every host is a namespace with a link of its own, shaped so that links and not CPUs are the limit.
Rows with a busier machine than 70 % say little: "meanwhile" tells how busy it was, and how much of
that was the lab's own.
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.cluster.place import NODES, REDIS, S3, Place, Sizes
from benchmarks.report import show, write
from tests.fakes.lab.network import Lab, missing
from tests.fakes.lab.origin import origin
from tests.fakes.lab.redis import is_installed

if TYPE_CHECKING:
    from benchmarks.report import Row

PARTS = ("warm", "cold", "joiner", "zones", "lost", "slow", "tampered", "redis", "placement")


def main() -> int:
    """Run the parts, print the table, write results/cluster.json. 1 if a goal or a part failed."""
    parser = argparse.ArgumentParser(prog="./dev bench-cluster", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="NAME", help=f"of: {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="smaller, a few minutes")
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"), help="on a real disk")
    chosen = parser.parse_args()
    unknown = set(chosen.parts) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    if why := missing() or ("" if is_installed() else "apt-get install redis-server"):
        parser.error(f"no lab here: {why}")
    # As ^C does: take everything down first.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    parts = [part for part in PARTS if part in (chosen.parts or PARTS)]
    rows: list[Row] = []
    failures = []
    with (
        tempfile.TemporaryDirectory(prefix="cacheop-bench-", dir=chosen.directory) as directory,
        Lab([*NODES, S3, REDIS]) as lab,
        origin(lab.host(S3), Path(directory)) as s3,
    ):
        place = Place(lab, s3, Path(directory), Sizes.of(quick=chosen.quick))
        try:
            for part in parts:
                started = time.monotonic()
                say(f"{part} …")
                try:
                    rows += importlib.import_module(f"benchmarks.cluster.{part}").measure(place)
                except Exception as error:  # noqa: BLE001 - the other parts count
                    failures.append(f"{part}: {type(error).__name__}: {error}")
                say(f"{part}: {time.monotonic() - started:.0f} s")
        finally:  # also after ^C: what was measured is not lost
            show("the cluster, quick run" if chosen.quick else "the cluster", rows)
            print(f"wrote {write('cluster', rows)}")
            for failure in failures:
                say(f"failed: {failure}")
    return int(bool(failures) or any(row.met is False for row in rows))


def say(text: str) -> None:
    """To the terminal, while the table is on its way."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
