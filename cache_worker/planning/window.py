"""How far ahead to fetch: from how fast a job reads and how long a fetch takes. Pure."""

from __future__ import annotations

from collections import deque
from math import ceil

QUEUE_CHUNKS = 10.0
HEADROOM = 2.0
"""On top of the least that hides the latency: rates are means, and steps are not even."""
LEAST_READS, MOST_READS = 64, 4096
QUOTA_PART = 4
MEASURE_SECONDS = 0.25
PAUSE_SECONDS = 2.0
"""A longer silence is a pause, between epochs perhaps: it says nothing of the rate."""
WEIGHT = 0.3
LATENCIES = 64


def window_reads(reads_per_second: float, latency_seconds: float, chunks_per_second: float) -> int:
    """W = R (L99 + 10 / B), with headroom: so many reads ahead of the last one are fetched."""
    if not reads_per_second:
        return LEAST_READS
    wait = latency_seconds + QUEUE_CHUNKS / max(chunks_per_second, reads_per_second / 10)
    return min(MOST_READS, max(LEAST_READS, ceil(HEADROOM * reads_per_second * wait)))


def budget_bytes(limit_bytes: int) -> int:
    """What may lie here fetched and not read yet, of all plans: what is wrong costs no more."""
    return limit_bytes // QUOTA_PART


class Pace:
    """The rate of something that is counted, as a moving mean."""

    def __init__(self) -> None:
        self.per_second = 0.0
        self._since: float | None = None
        self._count = 0.0

    def count(self, now: float, more: float) -> None:
        """`more` happened until now."""
        if self._since is None or now - self._since > PAUSE_SECONDS:
            self._since, self._count = now, 0.0
            return
        self._count += more
        seconds = now - self._since
        if seconds < MEASURE_SECONDS:
            return
        rate = self._count / seconds
        before = self.per_second
        self.per_second = rate if not before else before + WEIGHT * (rate - before)
        self._since, self._count = now, 0.0


class Latencies:
    """The slowest of the last fetches, which stands for the 99th percentile."""

    def __init__(self) -> None:
        self._last: deque[float] = deque(maxlen=LATENCIES)

    def add(self, seconds: float) -> None:
        """One fetch took so long."""
        self._last.append(seconds)

    @property
    def slow_seconds(self) -> float:
        """0 when none is known."""
        return max(self._last, default=0.0)
