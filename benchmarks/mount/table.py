"""The figures for people, and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Literal

from benchmarks.report import RESULTS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.mount.figures import Figure

WIDTH = 400  # no line is cut; the table takes what it needs

_COLUMNS: tuple[tuple[str, Literal["left", "right"]], ...] = (
    ("what", "left"),
    ("system", "left"),
    ("mode", "left"),
    ("value", "right"),
    ("spread", "right"),
    ("baseline", "right"),
    ("ratio", "right"),
    ("x JuiceFS", "right"),
    ("x fastest", "right"),
    ("CPU us/file", "right"),
    ("CPU s/GB", "right"),
    ("goal", "left"),
    ("met", "left"),
)


def show(title: str, figures: Sequence[Figure]) -> None:
    """One line a figure, rows of one kind together."""
    from rich.console import Console
    from rich.table import Table

    order = list(dict.fromkeys(figure.what for figure in figures))
    table = Table(
        title=title,
        caption="CPU of the readers and of all processes that serve them; the baseline's behind /",
    )
    for column, justify in _COLUMNS:
        table.add_column(column, justify=justify, no_wrap=True)
    previous = ""
    for figure in sorted(figures, key=lambda f: order.index(f.what)):
        if previous and previous != figure.what:
            table.add_section()
        table.add_row(*_cells(figure, figure.what if figure.what != previous else ""))
        previous = figure.what
    console = Console(width=WIDTH)
    console.print(table)
    notes: dict[tuple[str, str], list[str]] = {}
    for figure in figures:
        if figure.note:
            notes.setdefault((figure.what, figure.note), []).append(figure.system)
    for (what, note), systems in notes.items():
        console.print(f"{what} ({', '.join(systems)}): {note}", highlight=False)


def _cells(figure: Figure, what: str) -> list[str]:
    def number(value: float | None, scale: float = 1.0) -> str:
        if value is None:
            return ""
        value *= scale
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"

    def beside(ours: float | None, theirs: float | None, scale: float = 1.0) -> str:
        return " / ".join(text for text in (number(ours, scale), number(theirs, scale)) if text)

    low, high = figure.spread
    per_file = figure.unit in {"files/s", "s"}
    return [
        what,
        figure.system,
        figure.mode.partition(":")[0] if not figure.system.startswith("JuiceFS") else "",
        f"{number(figure.value)} {figure.unit}",
        f"{number(low)} to {number(high)}" if len(figure.runs) > 1 else "",
        f"{figure.baseline} {number(figure.baseline_value)}".strip(),
        number(figure.ratio),
        number(figure.x_juicefs),
        number(figure.x_juicefs_fastest),
        beside(figure.cpu_seconds_per_file, figure.baseline_cpu_seconds_per_file, 1e6)
        if per_file
        else "",
        beside(figure.cpu_seconds_per_gigabyte, figure.baseline_cpu_seconds_per_gigabyte),
        "\n".join(figure.goals),
        {True: "yes", False: "NO", None: ""}[figure.met],
    ]


def write(figures: Sequence[Figure], directory: Path = RESULTS) -> Path:
    """results/mount.json: every figure with its runs, goals and whether they were met."""
    directory.mkdir(exist_ok=True)
    path = directory / "mount.json"
    path.write_text(
        json.dumps([{**asdict(figure), "met": figure.met} for figure in figures], indent=2) + "\n"
    )
    return path
