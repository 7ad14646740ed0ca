"""How much a tier may hold: reservations, quota, watermarks, free-space floor. Pure."""

from __future__ import annotations

from dataclasses import dataclass

FLOOR_BYTES = 1 << 30
FLOOR_SHARE = 0.02
DEFAULT_QUOTA_SHARE = 0.8


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

    def above_high(self) -> int:
        """How many bytes to evict to get from above the high mark to the low mark; else 0."""
        total = self.used_bytes + self.reserved_bytes
        if total <= self.limit_bytes * self.high:
            return 0
        return max(0, total - int(self.limit_bytes * self.low))

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

    def dropped(self, length_bytes: int) -> None:
        """A chunk was evicted."""
        self.used_bytes -= length_bytes

    def saw_disk(self, available_bytes: int, disk_bytes: int) -> None:
        """Take note of what statvfs said just now."""
        self.free_bytes = available_bytes - floor_bytes(disk_bytes)
        self.free_at_used_bytes = self.used_bytes + self.reserved_bytes
