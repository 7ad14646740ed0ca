"""Where words go: results to stdout, everything said on the way to stderr; nothing of that in JSON.

A terminal gets rich tables, one line that is written over, and colours unless NO_COLOR is set. A
pipe gets plain aligned columns and a line every few seconds.
"""

from __future__ import annotations

import json
import os
import sys
import time
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from cacheop.api.errors import UserError
from cacheop.cli import progress, view

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TextIO

LINE_EVERY_SECONDS = 5.0
REDRAW_EVERY_SECONDS = 0.1


class Format(StrEnum):
    """What `-o` takes."""

    TEXT = "text"
    JSON = "json"


def is_terminal(stream: TextIO) -> bool:
    """Whether `stream` is a terminal that can move its cursor."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def has_colour() -> bool:
    """NO_COLOR that is not empty says no (no-color.org)."""
    return not os.environ.get("NO_COLOR")


def note(text: str, output: Format = Format.TEXT) -> None:
    """Say something that is not the result."""
    if output is Format.TEXT:
        print(text, file=sys.stderr, flush=True)


def print_json(content: object) -> None:
    """The result as JSON, indented for people who look."""
    print(json.dumps(content, indent=2, ensure_ascii=True))


def print_json_line(content: object) -> None:
    """One of several results as JSON, on one line, at once."""
    print(json.dumps(content, ensure_ascii=True), flush=True)


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """The result as a table."""
    if not is_terminal(sys.stdout):
        safe = [[view.printable(cell) for cell in row] for row in rows]
        print("\n".join(view.columns(head, safe)))
        return
    from rich.console import Console

    Console(highlight=False).print(rich_table(head, rows))


def rich_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Any:
    """A table for a terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in head:
        table.add_column(name, overflow="fold")
    for row in rows:
        safe = map(view.printable, row)
        table.add_row(*(Text(cell, style=style_of(cell)) for cell in safe))
    return table


STYLES = {
    "Ready": "green",
    "OK": "green",
    "True": "green",
    "yes": "green",
    "WARN": "yellow",
    "Indexing": "yellow",
    "partly": "yellow",
    "Failed": "red",
    "FAIL": "red",
    "False": "red",
    "not running": "red",
    "NotRunning": "red",
    "ready": "green",
    "draining": "yellow",
    "gone": "red",
}


def style_of(cell: str) -> str:
    """The colour of a word that says how things are; none for others."""
    return STYLES.get(cell, "")


class Line:
    """One changing line of progress on stderr. One thread owns it and closes it."""

    def __init__(self, output: Format) -> None:
        self._quiet = output is not Format.TEXT
        self._terminal = is_terminal(sys.stderr)
        self._next = 0.0 if self._terminal else time.monotonic() + LINE_EVERY_SECONDS
        self._shown = False

    def show(self, text: str) -> None:
        """Show `text` instead of what was shown, not more often than people can read."""
        now = time.monotonic()
        if self._quiet or now < self._next:
            return
        if self._terminal:
            sys.stderr.write(f"\r\x1b[K{text}")
            self._next, self._shown = now + REDRAW_EVERY_SECONDS, True
        else:
            sys.stderr.write(f"{text}\n")
            self._next = now + LINE_EVERY_SECONDS
        sys.stderr.flush()

    def close(self) -> None:
        """Leave no line behind on a terminal."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._shown = False


class Meter:
    """How far something with bytes is: a bar on a terminal, else a line every few seconds."""

    def __init__(self, title: str, output: Format) -> None:
        self._line = Line(output)
        self._progress: Any = None
        if output is Format.TEXT and is_terminal(sys.stderr):
            self._progress, self._task = _bar(title)
            self._progress.start()

    def show(self, event: Mapping[str, Any], words: str) -> None:
        """Take over `bytes` and `bytes_total` of `event`, and what else there is to say."""
        if self._progress is None:
            self._line.show(progress.line(event, words))
            return
        total = event.get("bytes_total") or None
        self._progress.update(
            self._task, completed=event.get("bytes") or 0, total=total, words=words
        )

    def close(self) -> None:
        """Stop drawing."""
        if self._progress is not None:
            self._progress.stop()


def _bar(title: str) -> tuple[Any, Any]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TextColumn("{task.fields[words]}"),
        console=Console(stderr=True),
    )
    return bar, bar.add_task(title, total=None, words="")


def confirm(what: str, *, yes: bool) -> None:
    """Ask before data is thrown away. UserError if nobody can be asked, or the answer is no."""
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UserError(f"this would {what}", hint="Say --yes to do it without being asked")
    sys.stderr.write(f"This will {what}. Go on? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise UserError("nothing was done", hint="Answer y, or say --yes")
