"""Which cached files go next: some at random places of the table, and the policy's choice of them.

Nothing that a Native mount shows is among them.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from cache_worker.eviction import Candidate
from cache_worker.pins import Pins
from cache_worker.tablefile import FORMER
from cacheop.api.chunk import chunk_count
from cacheop.api.table import COMPLETE, PRESENT, SUSPECT

if TYPE_CHECKING:
    from collections.abc import Callable

    from cache_worker.eviction import Policy
    from cache_worker.tablefile import TableFile
    from cache_worker.versions import Version, Versions

SAMPLE_WINDOW = 4096
SAMPLE_SIZE = 64

File = tuple["Version", int]
"""A file by one of the versions that have it, and its row there."""


class Victims:
    """Chooses and never drops."""

    def __init__(self, versions: Versions, table: TableFile, policy: Policy) -> None:
        self.pins = Pins(versions)
        self.policy = policy
        self._versions, self._table = versions, table
        self._random = random.Random()
        self.owned: Callable[[Version, int], frozenset[int]] | None = None
        """Which chunks of a file this node owns in its cluster; None = it is alone."""

    def look(self) -> None:
        """Begin a round: see what is pinned."""
        self.pins.look(self._table.used_slots)

    def choose(self, need_bytes: int, *, only_copies: bool = False) -> list[File]:
        """Files to drop for about `need_bytes`, in order; empty when nothing may go.

        `only_copies`: of what is chosen only the chunks that others own may go.
        """
        found = self._sample()
        if only_copies:
            found = {c: file for c, file in found.items() if self._may_go_in_part(c)}
        chosen = self.policy.victims(list(found), need_bytes)
        return [found[candidate] for candidate in chosen]

    def _may_go_in_part(self, candidate: Candidate) -> bool:
        """Whether a part that others own can go: of a file that readers may hold, none can."""
        if not candidate.owned_bytes:
            return True
        whole = self._table.file_state(candidate.first_slot) in (COMPLETE, FORMER)
        return not whole and candidate.owned_bytes < candidate.cached_bytes

    def owner(self, slot: int) -> File | None:
        """Which file, in which version, a slot belongs to."""
        for version in self._versions.all():
            row = version.row_at(slot)
            if row is not None:
                return version, row
        return None

    def _sample(self) -> dict[Candidate, File]:
        """Up to SAMPLE_SIZE cached files from random places of the table."""
        found: dict[Candidate, File] = {}
        for slot in self._sample_slots():
            owner = self.owner(slot)
            if owner is None:
                continue
            version, row = owner
            first = version.slots.first_slot(row)
            accessed, reads = self._table.last_use(first)
            cached = self._table.cached_bytes(first, chunk_count(version.index.size(row)))
            owned = self._owned_bytes(version, row, first)
            found[Candidate(first, cached, accessed, reads, owned)] = owner
        return found

    def _owned_bytes(self, version: Version, row: int, first: int) -> int:
        if self.owned is None:
            return 0
        return sum(self._table.cached_bytes(first + c, 1) for c in self.owned(version, row))

    def _sample_slots(self) -> list[int]:
        slots: list[int] = []
        used = self._table.used_slots
        window, left, count = self._random.randrange(max(1, used)), used, 0
        while left and len(slots) < SAMPLE_SIZE:  # once around the table at most
            window = (window + count) % used
            count = min(SAMPLE_WINDOW, used - window, left)
            left -= count
            if self.pins.holds_all(window, count):
                continue
            states = self._table.states(window, count)
            here = [window + i for i, state in enumerate(states) if state in (PRESENT, SUSPECT)]
            if self.pins.names:
                here = [slot for slot in here if not self.pins.holds(slot)]
            slots += self._random.sample(here, min(len(here), SAMPLE_SIZE // 4))
        return slots
