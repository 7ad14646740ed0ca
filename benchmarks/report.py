"""What a benchmark says: rows with a baseline measured in the same run, as a table and as JSON."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. `ratio` is value / baseline; `goal` says which way it must go."""

    what: str
    value: float
    unit: str
    baseline: float | None
    ratio: float | None
    goal: str
    met: bool | None
    spread: str = ""
    """Lowest and highest of the runs behind `value`."""
    note: str = ""
    """What else was seen meanwhile."""


def versus(
    what: str, unit: str, ours: Sequence[float], theirs: Sequence[float], at_least: float
) -> Row:
    """Medians of runs taken in turn; the goal is `at_least` times the baseline (a rate)."""
    value, baseline = statistics.median(ours), statistics.median(theirs)
    ratio = value / baseline
    goal = f">= {at_least:g} x baseline"
    return Row(what, value, unit, baseline, ratio, goal, ratio >= at_least, spread(ours))


def in_time(
    what: str, unit: str, ours: Sequence[float], theirs: Sequence[float], at_most: float | None
) -> Row:
    """Medians of durations taken in turn; at most so many times the baseline, or no goal."""
    value, baseline = statistics.median(ours), statistics.median(theirs)
    ratio = value / baseline
    goal = "" if at_most is None else f"<= {at_most:g} x baseline"
    met = None if at_most is None else ratio <= at_most
    return Row(what, value, unit, baseline, ratio, goal, met, spread(ours))


def at_most(what: str, unit: str, values: Sequence[float], limit: float) -> Row:
    """A median that may not pass `limit`."""
    value = statistics.median(values)
    goal = f"<= {limit:g} {unit}"
    return Row(what, value, unit, None, None, goal, value <= limit, spread(values))


def exactly(what: str, unit: str, value: float, wanted: float) -> Row:
    """A count that must be right, to a thousandth."""
    met = abs(value - wanted) <= wanted / 1000
    return Row(what, value, unit, wanted, value / wanted, f"= {wanted:g}", met)


def shown(what: str, unit: str, value: float, note: str = "") -> Row:
    """A figure without a goal, beside those that have one."""
    return Row(what, value, unit, None, None, "", None, note=note)


def spread(values: Sequence[float]) -> str:
    """Lowest to highest."""
    return f"{min(values):.3g} to {max(values):.3g}"


def write(name: str, rows: Sequence[Row], directory: Path = RESULTS) -> Path:
    """results/<name>.json: a list of {what, value, unit, baseline, ratio, goal, met, …}."""
    directory.mkdir(exist_ok=True)
    path = directory / f"{name}.json"
    path.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    return path


def show(title: str, rows: Sequence[Row]) -> None:
    """The table, for people."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    noted = any(row.note for row in rows)
    columns = ("what", "value", "spread", "baseline", "ratio", "goal", "met")
    for column in (*columns, "meanwhile") if noted else columns:
        left = column in {"what", "goal", "meanwhile"}
        table.add_column(column, justify="left" if left else "right")
    for row in rows:
        table.add_row(
            row.what,
            f"{row.value:,.4g} {row.unit}",
            row.spread,
            "" if row.baseline is None else f"{row.baseline:,.4g}",
            "" if row.ratio is None else f"{row.ratio:.2f}",
            row.goal,
            {True: "yes", False: "NO", None: ""}[row.met],
            *([row.note] if noted else []),
        )
    Console(width=220 if noted else 150).print(table)
