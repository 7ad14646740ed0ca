"""The versions of a Dataset that this node keeps: their mmapped manifests and who uses them."""

from __future__ import annotations

import json
import mmap
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cacheop.api import names
from cacheop.api.chunk import chunk_count
from cacheop.api.errors import NotFoundError, StoreError
from cacheop.api.index import Index
from cacheop.api.table import Slots

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from cache_worker.disk import Disk


def map_file(path: Path) -> memoryview:
    """The file as a read-only mapping, which lives as long as a view of it."""
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


@dataclass(slots=True)
class Version:
    """One open version. `uses` counts the connections that are bound to it."""

    name: str
    index: Index
    slots: Slots
    data: str
    uses: int = 0
    _runs: list[tuple[int, int]] | None = None

    def slot_runs(self) -> list[tuple[int, int]]:
        """The version's slots as (first, count) runs; walks the files if they are scattered."""
        if self._runs is None:
            first, size, rows = self.slots.first_slot, self.index.size, self.slots.rows_by_slot()
            runs: list[tuple[int, int]] = []
            if rows:
                start, last = first(rows[0]), rows[-1]
                end = first(last) + chunk_count(size(last))
                if end - start == self.index.chunks:
                    runs = [(start, end - start)]
                else:
                    runs = _runs((first(row), chunk_count(size(row))) for row in rows)
            self._runs = runs
        return self._runs

    def row_at(self, slot: int) -> int | None:
        """The file that owns `slot` in this version, if any."""
        row = self.slots.row_of_slot(slot)
        if row is None:
            return None
        first = self.slots.first_slot(row)
        return row if slot < first + chunk_count(self.index.size(row)) else None

    def path(self, row: int) -> str:
        """Where the bytes of `row` are."""
        return f"{self.data}/{self.index.path(row)}"


def _runs(pieces: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Neighbouring (first, count) pieces, joined."""
    runs: list[tuple[int, int]] = []
    for first, count in pieces:
        if runs and sum(runs[-1]) == first:
            runs[-1] = (runs[-1][0], runs[-1][1] + count)
        else:
            runs.append((first, count))
    return runs


@dataclass(slots=True)
class State:
    """`state.json`: what must survive a restart."""

    current: str = ""
    kept: list[str] = field(default_factory=list)
    """Oldest first; `current` is among them."""
    dropping: list[str] = field(default_factory=list)
    """Being deleted when the worker stopped: deleted at the next start."""
    suspended: bool = False
    origin_bytes: dict[str, int] = field(default_factory=dict)
    """Bytes read from the origin, by version, as of the last clean stop."""


class Versions:
    """All kept versions, open."""

    def __init__(self, root: Path, disk: Disk) -> None:
        self.root = root
        self._disk = disk
        self._open: dict[str, Version] = {}
        for directory in (names.MANIFEST_DIR, names.DATA_DIR):
            disk.make_directory("VERSIONS:MKDIR", str(root / directory))
        self.state = self._load()
        self.broken: list[str] = []
        """Kept versions whose manifest could not be opened, with the reason."""
        for name in list(self.state.kept):
            try:
                self.open(name)
            except (OSError, ValueError, KeyError) as error:
                self.broken.append(f"{name}: {error}")
                self.state.kept.remove(name)
                self.state.dropping.append(name)
        if self.state.current not in self._open:
            self.state.current = self.state.kept[-1] if self.state.kept else ""

    def _load(self) -> State:
        path = self.root / names.STATE_FILE
        try:
            raw = json.loads(path.read_text())
            return State(**{key: raw[key] for key in State.__dataclass_fields__ if key in raw})
        except FileNotFoundError:
            return State()
        except (ValueError, TypeError) as error:
            raise StoreError(
                f"{path} is damaged: {error}", hint="Delete the cache directory to start empty"
            ) from error

    def save(self) -> None:
        """Write state.json, whole or not at all."""
        fields = {key: getattr(self.state, key) for key in State.__dataclass_fields__}
        path = str(self.root / names.STATE_FILE)
        self._disk.replace("VERSIONS:STATE", path, json.dumps(fields).encode())

    def open(self, name: str) -> Version:
        """Map a version's manifest. Raises OSError or StoreError."""
        version = Version(
            name=name,
            index=Index(map_file(self.root / names.index_path(name))),
            slots=Slots(map_file(self.root / names.slots_path(name))),
            data=str(self.root / names.data_path(name)),
        )
        self._disk.make_directory("VERSIONS:MKDIR", version.data)
        self._open[name] = version
        return version

    def add(self, name: str) -> Version:
        """A new current version; its files are in place."""
        version = self._open.get(name) or self.open(name)
        if name in self.state.kept:
            self.state.kept.remove(name)
        self.state.kept.append(name)
        self.state.current = name
        self.save()
        return version

    def get(self, name: str = "") -> Version:
        """A kept version, by default the current one. NotFoundError if it is not here."""
        found = self._open.get(name or self.state.current)
        if found is None:
            kept = ", ".join(self.state.kept) or "none yet"
            raise NotFoundError(
                f"version {name!r} is not kept here (kept: {kept})" if name else "no version yet",
                hint="`cacheop versions` lists them; `cacheop refresh` makes a new one",
            )
        return found

    def current(self) -> Version | None:
        """The current version; None before the first."""
        return self._open.get(self.state.current)

    def all(self) -> list[Version]:
        """Every open version, the current one first."""
        current = self._open.get(self.state.current)
        others = [v for v in self._open.values() if v is not current]
        return [current, *others] if current else others

    def droppable(self, keep: int) -> list[str]:
        """Versions beyond the last `keep` that are neither current nor in use, oldest first."""
        old = self.state.kept[: max(0, len(self.state.kept) - keep)]
        return [n for n in old if n != self.state.current and not self._open[n].uses]

    def begin_drop(self, name: str) -> None:
        """From here on the version is not used any more, even after a crash."""
        self._open.pop(name, None)
        if name in self.state.kept:
            self.state.kept.remove(name)
        if name not in self.state.dropping:
            self.state.dropping.append(name)
        self.save()

    def finish_drop(self, name: str) -> None:
        """Its slots are forgotten: delete its files. Slow for many files: call it in a thread."""
        self._disk.remove_tree("VERSIONS:DATA", str(self.root / names.data_path(name)))
        for path in (names.index_path(name), names.slots_path(name), names.arrow_path(name)):
            self._disk.unlink("VERSIONS:MANIFEST", str(self.root / path))

    def dropped(self, name: str) -> None:
        """The files of `name` are gone."""
        self.state.dropping.remove(name)
        self.state.origin_bytes.pop(name, None)
        self.save()

    def created_seconds(self, name: str) -> float:
        """When the version was indexed, seconds since the epoch."""
        return os.stat(self.root / names.index_path(name)).st_mtime
