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


def main() -> int:
    """Run the storm of the tests for long; its figures as a table, its exit code as ours."""
    parser = argparse.ArgumentParser(prog="./dev bench-soak", description=__doc__)
    parser.add_argument("seconds", nargs="?", type=int, default=SECONDS)
    seconds = parser.parse_args().seconds
    done = subprocess.run(
        [sys.executable, "-m", "tests.node.mounts.storm", "--seconds", str(seconds)],
        check=False,
        stdout=subprocess.PIPE,
        text=True,
        timeout=seconds + SPARE_SECONDS,
    )
    lines = done.stdout.splitlines()
    if lines:
        show(json.loads(lines[-1]))
    return done.returncode


def show(found: dict[str, Any]) -> None:
    """Whatever the storm tells, a line each; what is nested, by its path."""
    from rich.console import Console
    from rich.table import Table

    table = Table("what", "found", title="storm")
    for name, value in flat(found):
        table.add_row(name, value)
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
