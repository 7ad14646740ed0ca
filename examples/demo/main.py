"""`./dev demo`: the same training straight from S3, through cacheop:// and through the mount."""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import signal
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from examples.demo.ways import QUICK, Demo, Plan, Result

if TYPE_CHECKING:
    from collections.abc import Sequence

LEAST_SPEEDUP = 5.0
ORIGIN_TOLERANCE = 0.005  # 1.00 x, as two digits show it
WITNESS_TOLERANCE = 0.01


def speedup(result: Result, direct: Result) -> float:
    """Samples/s of the epochs after the first, against the direct way."""
    warm = [row.epoch.samples_per_second for row in result.rows[1:]]
    return statistics.mean(warm) / direct.rows[0].epoch.samples_per_second


def problems(direct: Result, cached: Sequence[Result]) -> list[str]:
    """What is not as it must be, in words; empty when all is well."""
    found = []
    for result in cached:
        faster = speedup(result, direct)
        if faster < LEAST_SPEEDUP:
            found.append(
                f"{result.way}: later epochs only {faster:.1f} x direct, not {LEAST_SPEEDUP:.0f} x"
            )
        if result.origin_ratio is None or abs(result.origin_ratio - 1) > ORIGIN_TOLERANCE:
            found.append(
                f"{result.way}: origin bytes {result.origin_ratio} x the dataset, not 1.00"
            )
        for row in result.rows:
            apart = abs(row.linked_bytes - row.origin_bytes)
            if apart > WITNESS_TOLERANCE * row.epoch.payload_bytes:
                found.append(
                    f"{row.way}, epoch {row.number}: the worker says {row.origin_bytes:,} origin "
                    f"bytes, the link carried {row.linked_bytes:,}"
                )
    return found


def show(direct: Result, cached: Sequence[Result], picture: Path | None = None) -> None:
    """One line an epoch; as an SVG too where `picture` says."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="One line an epoch", title_justify="left")
    table.add_column("way")
    for head in (
        "epoch", "samples", "samples/s", "data wait", "utilisation", "origin MB", "hit ratio",
    ):  # fmt: skip
        table.add_column(head, justify="right")
    for result in (direct, *cached):
        for row in result.rows:
            epoch = row.epoch
            table.add_row(
                row.way,
                str(row.number),
                f"{epoch.samples:,}",
                f"{epoch.samples_per_second:,.0f}",
                f"{epoch.wait_share:.0%}",
                f"{epoch.utilisation:.0%}",
                f"{row.origin_bytes / 1e6:,.1f}",
                "-" if result is direct else f"{row.hit_ratio:.1%}",
            )
        table.add_section()
    width = None if sys.stdout.isatty() and picture is None else 100
    console = Console(width=width, record=picture is not None)
    console.print(table)
    for result in (direct, *cached):
        speeds = ", then ".join(f"{s:,.0f}" for s in result.shard_megabytes_per_second)
        console.print(
            f"large shards one after the other, {result.way.split(',')[0]}: {speeds} MB/s"
        )
    for result in cached:
        console.print(
            f"{result.way}: epochs 2 and 3 at {speedup(result, direct):.1f} x direct; "
            f"{len(result.rows)} epochs and the shards took {result.origin_ratio:.2f} x the "
            "dataset from the origin",
            soft_wrap=picture is None,
        )
    if picture:
        svg = console.export_svg(title="./dev demo")
        # The fonts would come from elsewhere; the reader's own monospace does.
        picture.write_text(re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL))


def run(plan: Plan, cache: Path, picture: Path | None = None) -> int:
    """The whole demo; exit code 1 when a figure is off."""

    def say(text: str) -> None:
        sys.stderr.write(f"demo: {text}\n")
        sys.stderr.flush()

    with Demo(plan, cache, say) as demo:
        began = time.monotonic()
        direct = demo.direct()
        cached = [demo.fsspec()]
        if demo.can_mount:
            cached.append(demo.mount())
        else:
            say("the mount is left out: it needs root and /dev/fuse")
        took = time.monotonic() - began
    show(direct, cached, picture)
    say(f"measured in {took:.0f} s, set-up and upload not counted")
    wrong = problems(direct, cached)
    for line in wrong:
        say(f"WRONG: {line}")
    return 1 if wrong else 0


def default_cache() -> Path:
    """Where the dataset and the S3 server's data are kept for the next run."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "cacheop" / "demo"


def main() -> int:
    """Command line of the demo."""
    parser = argparse.ArgumentParser(prog="./dev demo", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="600 images instead of 20,000")
    parser.add_argument("--delay-ms", type=float, default=30.0, help="of each request (30)")
    parser.add_argument(
        "--gbit", type=float, default=1.0, help="per second, shared (1); 0 = no cap"
    )
    parser.add_argument("--picture", type=Path, metavar="FILE.svg", help="the table as a picture")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="kept for the next run")
    given = parser.parse_args()
    plan = dataclasses.replace(
        QUICK if given.quick else Plan(),
        delay_seconds=given.delay_ms / 1000,
        bits_per_second=given.gbit * 1e9,
    )
    # `kill` ends the demo as Ctrl-C does: everything it started is ended with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return run(plan, given.cache, given.picture)
    except KeyboardInterrupt:
        sys.stderr.write("demo: interrupted; everything it started has been ended\n")
        return 130
    except (RuntimeError, OSError) as error:
        sys.stderr.write(f"demo: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
