"""Which versions Native mounts show: their files are read without anybody being asked.

A holder keeps a shared flock on data/<version>. We look at it before files are dropped and never
keep it; a holder that takes it asks `publish` once more, so one that comes later finds what went.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cache_worker.versions import Version, Versions

_HELD = b"\1"


class Pins:
    """What was found at the last look."""

    def __init__(self, versions: Versions) -> None:
        self._versions = versions
        self.names: frozenset[str] = frozenset()
        """The pinned versions."""
        self._held = bytearray()  # one byte a slot of the table: is it a pinned version's?

    def look(self, used_slots: int) -> None:
        """See which versions are pinned now; to be followed by drops without a pause between."""
        found = [v for v in self._versions.all() if self._versions.is_pinned(v.name)]
        names = frozenset(version.name for version in found)
        if names != self.names or (names and len(self._held) != used_slots):
            self.names = names
            self._held = _slots_of(found, used_slots)

    def holds(self, slot: int) -> bool:
        """Whether a pinned version uses `slot`, which it may share with others."""
        return slot < len(self._held) and self._held[slot] == _HELD[0]

    def holds_all(self, first: int, count: int) -> bool:
        """Whether none of `count` slots may be dropped."""
        held = self._held[first : first + count]
        return len(held) == count and 0 not in held


def _slots_of(versions: list[Version], used_slots: int) -> bytearray:
    held = bytearray(used_slots if versions else 0)
    for version in versions:
        for first, count in version.slot_runs():
            held[first : first + count] = _HELD * count
    return held
