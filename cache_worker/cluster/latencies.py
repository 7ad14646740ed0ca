"""How long the last answers of somebody took. Pure: `now` comes in."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass, field
from math import ceil

WINDOW_SAMPLES = 128
WINDOW_SECONDS = 60.0
"""Older latencies say nothing about now."""
ENOUGH_SAMPLES = 16


@dataclass(slots=True)
class Latencies:
    """The last ones, by time and by size: a quantile is wanted for every request."""

    _by_time: deque[tuple[float, float]] = field(default_factory=deque)
    _sorted: list[float] = field(default_factory=list)

    def add(self, now: float, seconds: float) -> None:
        """One more."""
        if len(self._by_time) == WINDOW_SAMPLES:
            self._drop_oldest()
        self._by_time.append((now, seconds))
        insort(self._sorted, seconds)

    def quantile(self, now: float, part: float, enough: int = ENOUGH_SAMPLES) -> float | None:
        """The latency that `part` of them do not pass; None before there are `enough`."""
        while self._by_time and self._by_time[0][0] < now - WINDOW_SECONDS:
            self._drop_oldest()
        if len(self._sorted) < enough:
            return None
        return self._sorted[ceil(part * len(self._sorted)) - 1]

    def _drop_oldest(self) -> None:
        _, seconds = self._by_time.popleft()
        del self._sorted[bisect_left(self._sorted, seconds)]
