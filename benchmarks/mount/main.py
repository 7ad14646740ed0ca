"""`./dev bench-mount [--quick] [NAME …]`: the mount beside ext4 and JuiceFS, in one run, as root.

Everything is in one temporary directory that is removed: < 20 GB and < 25 minutes for a full run.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.mount.figures import MODES
from benchmarks.mount.goals import judge
from benchmarks.mount.place import MountSizes, Place
from benchmarks.mount.table import show, write
from benchmarks.setting import Setting, Sizes
from examples.demo.server import S3Server

if TYPE_CHECKING:
    from benchmarks.mount.figures import Series

# In this order: the first finds the cache empty, the last needs the most of the disk.
PARTS = ("cold", "small", "big", "listing", "confined")


def main() -> int:
    """Run the parts, print the table, write results/mount.json. 1 if a goal or a part failed."""
    parser = argparse.ArgumentParser(prog="./dev bench-mount", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="NAME", help=f"of: {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="smaller, at most three minutes")
    parser.add_argument("--modes", default=",".join(MODES), help="which, by commas")
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"), help="on a real disk")
    chosen = parser.parse_args()
    unknown = set(chosen.parts) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        parser.error("mounting needs root and /dev/fuse")
    # As ^C does: take everything down first.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    parts = [part for part in PARTS if part in (chosen.parts or PARTS)]
    rows: list[Series] = []
    with (
        tempfile.TemporaryDirectory(prefix="cacheop-bench-", dir=chosen.directory) as directory,
        S3Server(Path(directory) / "s3") as s3,
    ):
        setting = Setting(Path(directory), Sizes.of(quick=True), s3)
        sizes = MountSizes.of(quick=chosen.quick)
        place = Place(setting, sizes, tuple(chosen.modes.split(",")))
        say("data …")
        place.make_data()
        try:
            for part in parts:
                started = time.monotonic()
                say(f"{part} …")
                with place.attempt(part):
                    rows += importlib.import_module(f"benchmarks.mount.{part}").measure(place)
                say(f"{part}: {time.monotonic() - started:.0f} s")
        finally:  # also after ^C: what was measured is not lost
            all_met = tell(rows, place.failures, quick=chosen.quick)
    return int(not all_met)


def tell(rows: list[Series], failures: list[str], *, quick: bool) -> bool:
    """Print the table and write it; whether all went well and every goal was met."""
    figures = judge(rows)
    show("the mount, quick run" if quick else "the mount", figures)
    print(f"wrote {write(figures)}")
    for failure in failures:
        say(f"failed: {failure}")
    return not failures and all(figure.met is not False for figure in figures)


def say(text: str) -> None:
    """To the terminal, while the table is on its way."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
