"""How much a tier may hold: reservations, quota, watermarks, free-space floor. Pure."""

from __future__ import annotations

from dataclasses import dataclass

FLOOR_BYTES = 1 << 30
FLOOR_SHARE = 0.02
DEFAULT_QUOTA_SHARE = 0.8
PATIENCE_LOOKS = 600
"""After so many looks at the disk half of what has not come back is not waited for any more."""


def floor_bytes(disk_bytes: int) -> int:
    """Bytes of the file system that stay free whatever the quota says."""
    return min(FLOOR_BYTES, int(disk_bytes * FLOOR_SHARE))


@dataclass(slots=True)
class Space:
    """The account of one tier. `used_bytes` is in chunks that are there, `reserved_bytes` in fills
    under way; their sum never passes `limit_bytes`, so that the quota is never promised twice.
    """

    quota_bytes: int
    high: float = 0.95
    low: float = 0.85
    used_bytes: int = 0
    reserved_bytes: int = 0
    free_bytes: int | None = None
    """Last seen free space of the file system above its floor; None = not looked yet."""
    free_at_used_bytes: int = 0
    """used + reserved when `free_bytes` was seen."""
    returning_bytes: int = 0
    """Evicted, but not seen free yet: readers hold the unlinked files, so their blocks come back
    later. To evict more on their account would empty the cache for nothing."""
    _used_when_seen_bytes: int = 0
    _unlinked_bytes: int = 0  # of files that readers may hold, since the disk was seen
    _looks: int = 0  # in which nothing of `returning_bytes` came back

    @property
    def limit_bytes(self) -> int:
        """The quota, or less where the file system itself has no more."""
        if self.free_bytes is None:
            return self.quota_bytes
        return min(self.quota_bytes, self.free_at_used_bytes + self.free_bytes)

    @property
    def is_short_of_disk(self) -> bool:
        """Whether the file system, not the quota, is what limits us."""
        return self.limit_bytes < self.quota_bytes and self.missing(1) > 0

    def missing(self, length_bytes: int) -> int:
        """How many bytes must go before `length_bytes` more can be reserved; 0 if they fit now."""
        return max(0, self.used_bytes + self.reserved_bytes + length_bytes - self.limit_bytes)

    def to_evict(self, length_bytes: int) -> int:
        """How many bytes to evict so that `length_bytes` more keep below the high mark."""
        return self._above(self.high, length_bytes)

    def above_high(self, length_bytes: int = 0) -> int:
        """How many bytes to evict to get from above the high mark to the low mark; else 0.

        `length_bytes`: as if so many more were there.
        """
        total = self.used_bytes + self.reserved_bytes + length_bytes
        return 0 if total <= self.limit_bytes * self.high else self._above(self.low, length_bytes)

    def _above(self, share: float, length_bytes: int) -> int:
        """By how much `length_bytes` more would pass that share of the quota, or of the disk."""
        total = self.used_bytes + self.reserved_bytes + length_bytes
        above = total - int(self.quota_bytes * share)
        if self.free_bytes is not None:
            disk_bytes = int((self.free_at_used_bytes + self.free_bytes) * share)
            above = max(above, total - disk_bytes - self.returning_bytes)
        return max(0, above)

    def reserve(self, length_bytes: int) -> bool:
        """Take `length_bytes` for a fill; False, and nothing taken, if they do not fit."""
        if self.missing(length_bytes):
            return False
        self.reserved_bytes += length_bytes
        return True

    def release(self, length_bytes: int) -> None:
        """Give a reservation back: the fill failed."""
        self.reserved_bytes -= length_bytes

    def commit(self, length_bytes: int) -> None:
        """The fill succeeded: reserved bytes are used bytes now."""
        self.reserved_bytes -= length_bytes
        self.used_bytes += length_bytes

    def dropped(self, length_bytes: int, *, may_be_held: bool = False) -> None:
        """A chunk was evicted; readers may hold the file that had it."""
        self.used_bytes -= length_bytes
        if may_be_held:
            self._unlinked_bytes += length_bytes

    def saw_disk(self, available_bytes: int, disk_bytes: int) -> None:
        """Take note of what statvfs said just now."""
        free = available_bytes - floor_bytes(disk_bytes)
        if self.free_bytes is not None:
            expected = self.free_bytes + self._used_when_seen_bytes - self.used_bytes
            self._await(expected - free)
        self.free_bytes = free
        self.free_at_used_bytes = self.used_bytes + self.reserved_bytes
        self._used_when_seen_bytes = self.used_bytes

    def _await(self, lacking_bytes: int) -> None:
        """Less came free than was dropped, or more (negative): what went before."""
        before, at_most = self.returning_bytes, self.returning_bytes + self._unlinked_bytes
        self.returning_bytes = min(max(0, before + lacking_bytes), at_most)
        self._unlinked_bytes = 0
        self._looks = self._looks + 1 if 0 < before <= self.returning_bytes else 0
        if self._looks >= PATIENCE_LOOKS:
            # Somebody else may have taken what came back, which no look can tell.
            self.returning_bytes //= 2
            self._looks = 0
