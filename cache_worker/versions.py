"""The versions of a Dataset that this node keeps: their mmapped manifests and who uses them."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cache_worker.repair import checked, manifest_checksum, versions_by_age
from cache_worker.version_files import open_index, open_slots, versions_on_disk
from cacheop.api import names
from cacheop.api.chunk import chunk_count
from cacheop.api.errors import NotFoundError, StoreError, UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from cache_worker.disk import Disk
    from cacheop.api.index import Index
    from cacheop.api.table import Slots

log = logging.getLogger("cacheop.worker")

IDLE_SECONDS = 30.0
"""A version stays this long after its last use, and after our start: a mount process that died
comes back, and clients of a worker that died before us bind again."""


@dataclass(slots=True)
class Version:
    """One open version.

    `uses` counts the connections that are bound to it and the work of ours that is under way on
    its files: while there is any, the version is not dropped.
    """

    name: str
    index: Index
    slots: Slots
    data: str
    uses: int = 0
    last_use: float = field(default_factory=time.monotonic)
    """time.monotonic() when `uses` last fell, at first when the version was opened."""
    _runs: list[tuple[int, int]] | None = None

    def use(self) -> None:
        """To be followed by `unuse`."""
        self.uses += 1

    def unuse(self) -> None:
        """The end of a use."""
        self.uses -= 1
        self.last_use = time.monotonic()

    @contextmanager
    def used(self) -> Iterator[None]:
        """Keep the version for the block."""
        self.use()
        try:
            yield
        finally:
            self.unuse()

    def slots_end(self) -> int:
        """One past the version's last slot."""
        rows = self.slots.rows_by_slot()
        if not rows:
            return 0
        return self.slots.first_slot(rows[-1]) + chunk_count(self.index.size(rows[-1]))

    def slots_range(self) -> range:
        """From the version's first slot to its last; slots of other versions may lie between."""
        rows = self.slots.rows_by_slot()
        return range(self.slots.first_slot(rows[0]) if rows else 0, self.slots_end())

    def slot_runs(self) -> list[tuple[int, int]]:
        """The version's slots as (first, count) runs; walks the files if they are scattered."""
        if self._runs is None:
            first, size, rows = self.slots.first_slot, self.index.size, self.slots.rows_by_slot()
            start = first(rows[0]) if rows else 0
            if self.slots_end() - start == self.index.chunks:
                self._runs = [(start, self.index.chunks)]
            else:
                self._runs = _runs((first(row), chunk_count(size(row))) for row in rows)
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
    generation: int = 0
    """How many versions the cluster had made when it made our newest; 0 = alone."""
    suspended: bool = False
    origin_bytes: dict[str, int] = field(default_factory=dict)
    """Bytes read from the origin, by version, as of the last clean stop."""
    manifests: dict[str, str] = field(default_factory=dict)
    """Checksum of index and slots, by version."""


class Versions:
    """All kept versions, open."""

    def __init__(self, root: Path, disk: Disk) -> None:
        self.root = root
        self._disk = disk
        self._open: dict[str, Version] = {}
        self._locks: dict[str, int] = {}  # of versions being dropped: fds of their indexes
        for directory in (names.MANIFEST_DIR, names.DATA_DIR):
            disk.make_directory("VERSIONS:MKDIR", str(root / directory))
        self.state = self._load()
        self.gone: set[str] = set()
        """Versions that were dropped since we started."""
        self.broken: list[str] = []
        """Kept versions whose manifest could not be opened, with the reason."""
        for name in list(self.state.kept):
            try:
                self._check(name)
                self.open(name)
            except (OSError, ValueError, KeyError) as error:
                self.broken.append(f"{name}: {error}")
                self.state.kept.remove(name)
                self.state.dropping.append(name)
        # Listed, but we died before it was taken over: nobody would ever delete it.
        known = {*self.state.kept, *self.state.dropping}
        self.state.dropping += [name for name in versions_on_disk(root) if name not in known]
        if self.state.current not in self._open:
            self.state.current = self.newest()

    def _load(self) -> State:
        path = self.root / names.STATE_FILE
        try:
            empty = State()
            defaults = {key: getattr(empty, key) for key in State.__dataclass_fields__}
            return State(**checked(json.loads(path.read_text()), defaults))
        except FileNotFoundError:
            reason = "is gone"
        except ValueError as error:
            reason = f"is damaged ({error})"
        kept = versions_by_age(self.root)
        if kept:
            log.warning("%s %s: made again from the manifests", path, reason)
        return State(current=kept[-1] if kept else "", kept=kept)

    def _check(self, name: str) -> None:
        """StoreError if the manifest is not the one that was taken over."""
        found = manifest_checksum(self.root, name)
        if self.state.manifests.setdefault(name, found) != found:
            raise StoreError("its manifest is damaged (wrong checksum)")

    def save(self) -> None:
        """Write state.json, whole or not at all."""
        fields = {key: getattr(self.state, key) for key in State.__dataclass_fields__}
        path = str(self.root / names.STATE_FILE)
        self._disk.replace("VERSIONS:STATE", path, json.dumps(fields).encode())

    def close(self, name: str) -> None:
        """Take `open` back: the version cannot be taken over."""
        if name not in self.state.kept:
            self._open.pop(name, None)

    def open(self, name: str) -> Version:
        """Map a version's manifest, unless it is open. Raises OSError or StoreError."""
        if name in self._open:
            return self._open[name]
        version = Version(
            name=name,
            index=open_index(self.root, name),
            slots=open_slots(self.root, name),
            data=str(self.root / names.data_path(name)),
        )
        self._disk.make_directory("VERSIONS:MKDIR", version.data)
        self._open[name] = version
        return version

    def add(self, name: str) -> Version:
        """A new current version; its files are in place."""
        version = self.open(name)
        self.gone.discard(name)
        if name in self.state.dropping:
            self.state.dropping.remove(name)
        if name in self.state.kept:
            self.state.kept.remove(name)
        self.state.kept.append(name)
        self.state.manifests[name] = manifest_checksum(self.root, name)
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

    def newest(self) -> str:
        """The version that was made last; empty before the first."""
        return self.state.kept[-1] if self.state.kept else ""

    def renew(self, name: str) -> None:
        """A kept version is the newest again: the origin went back to it."""
        self.state.kept.remove(name)
        self.state.kept.append(name)

    def all(self) -> list[Version]:
        """Every open version, the current one first."""
        current = self._open.get(self.state.current)
        others = [v for v in self._open.values() if v is not current]
        return [current, *others] if current else others

    def droppable(self, keep: int) -> list[str]:
        """Versions beyond the last `keep`, neither current nor used of late, oldest first."""
        old = self.state.kept[: max(0, len(self.state.kept) - keep)]
        idle_since = time.monotonic() - IDLE_SECONDS
        return [
            name
            for name in old
            if name != self.state.current
            and self._open[name].last_use < idle_since
            and not self.is_in_use(name)
        ]

    def is_in_use(self, name: str) -> bool:
        """Whether somebody is bound to the version, or reads it without us (names.index_path)."""
        version = self._open.get(name)
        if (version is not None and version.uses) or self.is_pinned(name):
            return True
        lock = self._lock(name)
        if lock is None:
            return True
        os.close(lock)
        return False

    def is_pinned(self, name: str) -> bool:
        """Whether a Native mount shows the version's tree: somebody has its directory locked."""
        try:
            fd = os.open(
                self.root / names.data_path(name), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
            )
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)  # and with it the lock
        return False

    def _lock(self, name: str) -> int | None:
        """An fd with the exclusive lock of the version's index; None if a reader shares it."""
        path = self.root / names.index_path(name)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:  # deleted by hand: nobody new can come, and it can only go
            return os.open(self.root, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        except OSError:
            os.close(fd)
            raise
        return fd

    def begin_drop(self, name: str) -> None:
        """From here on the version is not used any more, even after a crash. UserError: it is."""
        version = self._open.get(name)
        if version is not None:
            in_use = version.uses or self.is_pinned(name)
            lock = None if in_use else self._lock(name)
            if lock is None:
                raise UserError(
                    f"version {name} is in use", hint="Unmount it or close its readers first"
                )
            self._locks[name] = lock  # until it is gone: nobody comes in between
        self._open.pop(name, None)
        self.gone.add(name)
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
        if name in self._locks:
            os.close(self._locks.pop(name))
        self.state.dropping.remove(name)
        self.state.origin_bytes.pop(name, None)
        self.state.manifests.pop(name, None)
        self.save()

    def created_seconds(self, name: str) -> float:
        """When the version was indexed, seconds since the epoch."""
        return os.stat(self.root / names.index_path(name)).st_mtime
