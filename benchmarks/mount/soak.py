"""`./dev bench-soak [SECONDS]`: readers while every process of the mount is killed at random."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

SECONDS = 600
SPARE_SECONDS = 300
"""To set up, to take down, and for the last hand-over."""
STORMS = (
    ("ZeroOpen",),
    ("Passthrough",),
    ("Fuse",),
    ("Passthrough", "--mask"),
)
"""Modes; the last as on a kernel that knows neither passthrough nor resend."""


def main() -> int:
    """A storm of the tests in each mode, long; their figures side by side; 1 if one failed."""
    parser = argparse.ArgumentParser(prog="./dev bench-soak", description=__doc__)
    parser.add_argument("seconds", nargs="?", type=int, default=SECONDS, help="of all together")
    seconds = parser.parse_args().seconds // len(STORMS)
    found, failed = {}, False
    for mode, *options in STORMS:
        name = " ".join((mode, *options))
        print(f"{name}: {seconds} s …", file=sys.stderr, flush=True)
        told, code = storm(seconds, mode, options)
        found[name] = dict(flat(told))
        failed |= bool(code)
    show(found)
    return int(failed)


def storm(seconds: int, mode: str, options: list[str]) -> tuple[dict[str, Any], int]:
    """(the JSON line it prints, its exit code)."""
    what = ["--seconds", str(seconds), "--mode", mode, *options]
    done = subprocess.run(
        [sys.executable, "-m", "tests.node.mounts.storm", *what],
        check=False,
        stdout=subprocess.PIPE,
        text=True,
        timeout=seconds + SPARE_SECONDS,
    )
    lines = done.stdout.splitlines()
    return (json.loads(lines[-1]) if lines else {}), done.returncode


def show(storms: dict[str, dict[str, str]]) -> None:
    """Whatever the storms tell, a line each; what is nested, by its path."""
    from rich.console import Console
    from rich.table import Table

    table = Table("what", *storms, title="storms of SIGKILL")
    for what in dict.fromkeys(what for told in storms.values() for what in told):
        table.add_row(what, *(told.get(what, "") for told in storms.values()))
    Console().print(table)


def flat(found: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Pure: leaves with the names that lead to them."""
    rows: list[tuple[str, str]] = []
    for name, value in found.items():
        if isinstance(value, dict):
            rows += flat(value, f"{prefix}{name} ")
        else:
            rows.append((f"{prefix}{name}", f"{value:,}" if isinstance(value, int) else str(value)))
    return rows


if __name__ == "__main__":
    sys.exit(main())
