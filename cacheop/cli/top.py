"""`cacheop top`: nodes, where reads come from, hottest files, once a second."""

from __future__ import annotations

import contextlib
import itertools
import sys
import time
from typing import TYPE_CHECKING, Any, Protocol

from cacheop import local
from cacheop.api.errors import ProtocolError, UserError, WorkerUnavailable
from cacheop.cli import output, select, snapshot, view
from cacheop.cli.asking import ask_each, statuses
from cacheop.cli.output import Format

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cacheop.local import RunRecord

EVERY_SECONDS = 1.0
SILENCE_SECONDS = 2.0
HOT_FILES = 10


class Source(Protocol):
    """The nodes of a Dataset, here or in a cluster."""

    namespace: str
    name: str

    def statuses(self) -> list[dict[str, Any]]:
        """Of every node, as `asking.statuses`. WorkerUnavailable once the Dataset is gone."""
        ...

    def hot(self, running: set[str]) -> list[list[dict[str, Any]]]:
        """What each node says it is read most of; nothing where a worker cannot say it."""
        ...


class Here:
    """The nodes on this machine; read again each time: some are stopped and started meanwhile."""

    def __init__(self, record: RunRecord) -> None:
        self.namespace, self.name, self._record = record.namespace, record.name, record

    def statuses(self) -> list[dict[str, Any]]:
        """As Source."""
        found = local.find(self.namespace, self.name)
        if found is None:
            raise WorkerUnavailable(f"Dataset {self.namespace}/{self.name} was taken down")
        self._record = found
        return statuses(found, SILENCE_SECONDS)

    def hot(self, running: set[str]) -> list[list[dict[str, Any]]]:
        """As Source."""
        nodes = [node for node in self._record.nodes if node.node in running]
        # UserError: another user's worker, which tells its status only.
        with contextlib.suppress(ProtocolError, UserError):
            answers = ask_each(nodes, "hot", silence_seconds=SILENCE_SECONDS, count=HOT_FILES)
            return [answer["files"] for answer in answers if isinstance(answer, dict)]
        return []


def top(name: str, namespace: str, count: int | None, fmt: Format) -> int:
    """Until ^C on a terminal, else `count` snapshots (1)."""
    record = select.pick(local.all_records(), name, namespace)
    output.note(view.subject(record), fmt)
    return watch(Here(record), count, fmt)


def watch(source: Source, count: int | None, fmt: Format) -> int:
    """Show snapshots of `source`."""
    live = fmt is Format.TEXT and output.is_terminal(sys.stdout)
    found = itertools.islice(snapshots(source), count or (None if live else 1))
    if live:
        _draw(source, found)
        return 0
    for one in found:
        if fmt is Format.JSON:
            output.print_json_line(one)
        else:
            output.print_table(snapshot.HEAD, snapshot.rows(one))
            if one["hot"]:
                print()
                output.print_table(snapshot.HOT_HEAD, snapshot.hot_rows(one))
    return 0


def snapshots(source: Source) -> Iterator[dict[str, Any]]:
    """One a second."""
    before, looked = source.statuses(), time.monotonic()
    while True:
        time.sleep(max(0.0, looked + EVERY_SECONDS - time.monotonic()))
        after, now = source.statuses(), time.monotonic()
        running = {status["node"] for status in after if status["running"]}
        head = {"dataset": source.name, "namespace": source.namespace, "time": time.time()}
        yield head | snapshot.snapshot(before, after, now - looked, source.hot(running))
        before, looked = after, now


def _draw(source: Source, found: Iterator[dict[str, Any]]) -> None:
    from rich.console import Console, Group
    from rich.live import Live

    with (
        contextlib.suppress(KeyboardInterrupt),  # how one leaves it
        Live(console=Console(highlight=False), auto_refresh=False) as screen,
    ):
        for one in found:
            version, size = one["version"] or view.UNKNOWN, view.size(one["bytes_total"])
            title = f"{source.namespace}/{source.name} version {version}, {size}; ^C ends"
            parts: list[Any] = [title, output.rich_table(snapshot.HEAD, snapshot.rows(one))]
            if one["hot"]:
                parts += ["", output.rich_table(snapshot.HOT_HEAD, snapshot.hot_rows(one))]
            screen.update(Group(*parts), refresh=True)
