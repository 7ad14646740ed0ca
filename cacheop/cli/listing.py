"""`cacheop ls`: the mmapped manifest index and chunk table, read as clients read them."""

from __future__ import annotations

import mmap
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from cacheop import local
from cacheop.api.chunk import chunk_count
from cacheop.api.index import Index
from cacheop.api.table import ChunkTable, Slots
from cacheop.cli import output, select, verbs, view
from cacheop.cli.control import Control
from cacheop.cli.output import Format

if TYPE_CHECKING:
    from pathlib import Path

YES, NO, PARTLY = "yes", "no", "partly"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a listing."""

    name: str
    type: str
    """file or directory"""
    size: int
    """Bytes; of a directory: of all files below."""
    mtime: float
    """Seconds since the epoch."""
    cached: str
    """yes, no or partly; empty when it was not asked for."""


def list_path(text: str, namespace: str, fmt: Format, *, long: bool) -> int:
    """Print the entries of a directory, or one file."""
    record, version, path = select.pick_path(local.all_records(), text, namespace)
    output.note(f"{view.subject(record)}: /{path}", fmt)
    # Any has the index; one that runs answers.
    node = next(filter(local.is_alive, record.nodes), record.nodes[0])
    with Control(node.root) as control:
        bound = control.ask("bind", version=version)  # kept in use while the connection is open
        index = Index(_map(node.root / bound["index"]))
        row = index.resolve(path)
        if row is None:
            raise verbs.nothing_found(path, record)
        rows = index.children(row) if index.is_directory(row) else range(row, row + 1)
        wide = long or fmt is Format.JSON
        cached = None
        if wide:
            cached = Cached(
                index,
                Slots(_map(node.root / bound["slots"])),
                ChunkTable(_map(node.root / bound["table"])),
            )
        entries = (entry(index, r, cached) for r in rows)
        if fmt is Format.JSON:
            content: dict[str, Any] = {
                "dataset": record.name,
                "namespace": record.namespace,
                "version": index.version,
                "path": path,
                "entries": [asdict(e) for e in entries],
            }
            output.print_json(content)
        else:
            _print(list(entries), long=long)
    return 0


def _print(entries: list[Entry], *, long: bool) -> None:
    shown = [view.printable(e.name) + ("/" if e.type == "directory" else "") for e in entries]
    if not long:
        print("\n".join(shown))
        return
    rows = [
        (view.size(e.size), view.moment(e.mtime), e.cached, name)
        for e, name in zip(entries, shown, strict=True)
    ]
    output.print_table(("SIZE", "MODIFIED", "CACHED", "NAME"), rows)


class Cached:
    """What a node holds of one version. Holds views of mmaps; read only."""

    def __init__(self, index: Index, slots: Slots, table: ChunkTable) -> None:
        self._index, self._slots, self._table = index, slots, table

    def of(self, row: int) -> str:
        """Whether the file at `row`, or every file below it, is held."""
        if not self._index.is_directory(row):
            return self._of_file(row)
        found: set[str] = set()
        for level in self._index.subtree(row):
            for below in level:
                if not self._index.is_directory(below):
                    found.add(self._of_file(below))
                    if len(found) > 1 or PARTLY in found:
                        return PARTLY
        return found.pop() if found else YES

    def _of_file(self, row: int) -> str:
        first = self._slots.first_slot(row)
        if self._table.is_complete(first):
            return YES
        chunks = range(first, first + chunk_count(self._index.size(row)))
        return PARTLY if any(self._table.is_present(slot) for slot in chunks) else NO


def entry(index: Index, row: int, cached: Cached | None) -> Entry:
    """The line of `row`; directories are summed up only when `cached` is given, as that scans."""
    directory = index.is_directory(row)
    size_bytes = index.size(row)
    if directory and cached is not None:
        size_bytes = sum(index.size(r) for level in index.subtree(row) for r in level)
    return Entry(
        name=index.name(row).decode("utf-8", "surrogateescape"),
        type="directory" if directory else "file",
        size=size_bytes,
        mtime=index.mtime_ns(row) / 1e9,
        cached=cached.of(row) if cached is not None else "",
    )


def _map(path: Path) -> memoryview:
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
