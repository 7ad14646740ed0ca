"""Which cached chunks go next: some at random places of the table, and the policy's choice of them.

Nothing that a Native mount shows is among them. What only a version has that is neither current nor
read goes first.
"""

from __future__ import annotations

import random
from itertools import compress
from typing import TYPE_CHECKING

from cache_worker import states
from cache_worker.eviction.policy import Held
from cache_worker.pins import Pins
from cache_worker.tablefile import FORMER
from cacheop.api.chunk import chunk_count
from cacheop.api.table import COMPLETE

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from cache_worker.eviction.policy import Policy
    from cache_worker.tablefile import TableFile
    from cache_worker.versions import Version, Versions

WINDOW = 256
"""Slots that are looked at together; a sample comes from at least WINDOWS of them."""
WINDOWS = 16
SMALL = 4096
"""A table of so many slots is looked at whole."""
STALE_MIN = 64

File = tuple["Version", int]
"""A file by one of the versions that have it, and its row there."""


class Victims(Held):
    """Chooses and never drops."""

    def __init__(self, versions: Versions, table: TableFile, policy: Policy) -> None:
        self.pins = Pins(versions)
        self.policy = policy
        self._versions, self._table = versions, table
        self._random = random.Random()
        self._only_copies = False
        self.owned: Callable[[Version, int], frozenset[int]] | None = None
        """Which chunks of a file this node owns in its cluster; None = it is alone."""
        self.needed: Callable[[int], bool] | None = None
        """Whether a plan says that a chunk is read in a moment: such go last."""

    def look(self) -> None:
        """Begin a round: see what is pinned."""
        self.pins.look(self._table.used_slots)

    def choose(
        self, need_bytes: int, *, only_copies: bool = False, newcomer: int | None = None
    ) -> list[int]:
        """Slots to drop for about `need_bytes`, in order; empty when nothing may go.

        `only_copies`: only what other nodes own. `newcomer`: see Policy.victims.
        """
        self._only_copies = only_copies
        stale = self._stale(need_bytes)
        if stale:
            return stale
        return self.policy.victims(self, need_bytes, newcomer)

    def goes_with(self, slot: int) -> tuple[File, list[int]] | None:
        """(the file, its chunks that must go with the one at `slot`); None if nobody knows it.

        A file that readers may hold goes whole: it is never punched.
        """
        file = self.owner(slot)
        if file is None:
            return None
        first, count = self._extent(file)
        whole = self._table.file_state(first) in (COMPLETE, FORMER)
        return file, list(range(count)) if whole else [slot - first]

    def owner(self, slot: int) -> File | None:
        """Which file, in which version, a slot belongs to."""
        for version in self._versions.all():
            row = version.row_at(slot)
            if row is not None:
                return version, row
        return None

    # -- Held -------------------------------------------------------------------------------------

    def sample(self, count: int) -> Sequence[int]:
        """See Held."""
        used, found, looked = self._table.used_slots, set[int](), 0
        if used > SMALL:
            each = max(1, count // WINDOWS)
            while len(found) < count and looked < used:
                here = self._here(self._random.randrange(used - WINDOW), WINDOW)
                found.update(self._random.sample(here, min(len(here), each)))
                looked += WINDOW
        slots = list(found) if found else self._here(0, used)
        if len(slots) > count:
            slots = self._random.sample(slots, count)
        if self._only_copies:
            slots = [slot for slot in slots if self._may_be_dropped(slot)]
        if self.needed is not None:
            return [slot for slot in slots if not self.needed(slot)] or slots
        return slots

    def may_go(self, slot: int) -> bool:
        """See Held."""
        here = self._table.state_byte(slot) if slot < self._table.used_slots else 0
        if not states.HOLDS_BYTES[here] or self.pins.holds(slot):
            return False
        return not self._only_copies or self._may_be_dropped(slot)

    def lengths(self, slots: Sequence[int]) -> Sequence[int]:
        """See Held."""
        return self._table.lengths(slots)

    def copies(self, slots: Sequence[int]) -> Collection[int]:
        """See Held."""
        return () if self.owned is None else {slot for slot in slots if self._is_copy(slot)}

    def _here(self, first: int, count: int) -> list[int]:
        """The slots of a window that hold bytes and are not pinned."""
        if self.pins.holds_all(first, count):
            return []
        held = self._table.state_bytes(first, count).translate(states.HOLDS_BYTES)
        here = list(compress(range(first, first + count), held))
        return [slot for slot in here if not self.pins.holds(slot)] if self.pins.names else here

    # -- whose it is ------------------------------------------------------------------------------

    def _is_copy(self, slot: int) -> bool:
        file = self.owner(slot)
        if file is None or self.owned is None:
            return False
        return slot - self._extent(file)[0] not in self.owned(*file)

    def _may_be_dropped(self, slot: int) -> bool:
        """Whether others own the chunk, and all that must go with it."""
        found = self.goes_with(slot)
        if found is None or self.owned is None:
            return False
        file, chunks = found
        return self.owned(*file).isdisjoint(chunks)

    def _stale(self, need_bytes: int) -> list[int]:
        """Some chunks that no version has that is current or read."""
        versions = self._versions.all()
        if len(versions) < 2 or not any(self._is_stale(version) for version in versions):
            return []
        stale: list[int] = []
        for slot in self.sample(STALE_MIN):
            if need_bytes <= 0:
                break
            # The current version comes first: what it shares is its own.
            owners = [version for version in versions if version.row_at(slot) is not None]
            if owners and all(self._is_stale(version) for version in owners):
                stale.append(slot)
                need_bytes -= self._table.length(slot)
        return stale

    def _is_stale(self, version: Version) -> bool:
        return version.name != self._versions.state.current and not version.uses

    def _extent(self, file: File) -> tuple[int, int]:
        version, row = file
        return version.slots.first_slot(row), chunk_count(version.index.size(row))
