"""How many large reads of the origin a clustered node has under way. Pure: `now` comes in.

Behind a thin link many reads at once make each of them late, and neighbours wait for whole chunks:
few at a time feed them as early as can be. Where a connection, not the link, is the limit, more
reads bring more. So we begin with few and take more while reads are quick, or while twice as many
bring clearly more bytes a second.
"""

from __future__ import annotations

from dataclasses import dataclass

from cacheop.api.chunk import CHUNK_BYTES

FIRST, MOST = 2, 32
QUICK_SECONDS = 1.0
"""A read of a whole chunk that took no longer says that the link bears more."""
GROWTH = 1.4
"""What twice as many reads must bring, to be kept."""
RETRY_SECONDS = 30.0


@dataclass(slots=True)
class Ramp:
    """`limit` reads may be under way."""

    limit: int = FIRST
    _before: float | None = None
    """Bytes a second with half as many; None = not compared."""
    _skipped: int = 0
    """Reads that ended since the limit changed and began before; they are not measured."""
    _ended: int = 0
    _bytes: int = 0
    _since: float = 0.0
    _rests_until: float = 0.0

    def ended(self, now: float, length_bytes: int, seconds: float) -> None:
        """A read that was under way for `seconds` gave so many bytes."""
        if seconds <= QUICK_SECONDS * length_bytes / CHUNK_BYTES:
            self._go(now, min(MOST, self.limit + 1), None)
        elif now >= self._rests_until:
            self._measure(now, length_bytes)

    def _measure(self, now: float, length_bytes: int) -> None:
        if self._skipped < self.limit:
            self._skipped += 1
            self._since = now
            return
        self._ended += 1
        self._bytes += length_bytes
        if self._ended < self.limit or now <= self._since:
            return
        rate = self._bytes / (now - self._since)
        if self._before is not None and rate < GROWTH * self._before:
            self._go(now, self.limit // 2, None)
            self._rests_until = now + RETRY_SECONDS
        elif self.limit < MOST:
            self._go(now, min(MOST, 2 * self.limit), rate)

    def _go(self, now: float, limit: int, before: float | None) -> None:
        self.limit, self._before = limit, before
        self._skipped = self._ended = self._bytes = 0
        self._since = now
