"""How fast peers, and the origin, send while something is asked of them. Pure: `now` comes in.

Latencies mix the way of a chunk with its wait in queues; bytes a second do not. So a peer behind a
thin link is found within a second, while its first chunks are still on their way.
"""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass, field

ORIGIN = ""
"""The name that the origin goes by among the nodes."""
SLOW_FACTOR = 10.0
WINDOW_BUSY_SECONDS = 3.0
ENOUGH_BUSY_SECONDS = 1.5
FORGET_SECONDS = 60.0
"""A peer that was found slow is not asked; after this it is tried again."""


@dataclass(slots=True)
class Sender:
    """One that sends. Busy while anything asked of it is under way."""

    asked: int = 0
    busy_seconds: float = 0.0
    busy_since: float = 0.0
    samples: deque[tuple[float, float, int]] = field(default_factory=lambda: deque(maxlen=256))
    """(now, busy seconds, bytes) so far."""

    def busy(self, now: float) -> float:
        """Seconds that it was busy."""
        return self.busy_seconds + (now - self.busy_since if self.asked else 0.0)


@dataclass(slots=True)
class Pace:
    """All senders, by node."""

    _senders: dict[str, Sender] = field(default_factory=dict)

    def asks(self, now: float, node: str, total_bytes: int) -> None:
        """Something is asked of it, which sent `total_bytes` so far."""
        sender = self._senders.setdefault(node, Sender())
        if not sender.asked:
            sender.busy_since = now
        sender.asked += 1
        self.saw(now, node, total_bytes)

    def ended(self, now: float, node: str, total_bytes: int) -> None:
        """One thing that was asked is no longer under way."""
        sender = self._senders[node]
        self.saw(now, node, total_bytes)
        sender.busy_seconds = sender.busy(now)
        sender.busy_since = now
        sender.asked -= 1

    def saw(self, now: float, node: str, total_bytes: int) -> None:
        """It sent `total_bytes` so far."""
        sender = self._senders.setdefault(node, Sender())
        sender.samples.append((now, sender.busy(now), total_bytes))

    def bytes_per_second(self, now: float, node: str) -> float | None:
        """What it sent lately while it was busy; None when that was too short to tell."""
        sender = self._senders.get(node)
        if sender is None:
            return None
        samples = sender.samples
        while samples and samples[0][0] < now - FORGET_SECONDS:
            samples.popleft()
        while len(samples) > 2 and samples[-1][1] - samples[1][1] >= WINDOW_BUSY_SECONDS:
            samples.popleft()
        if not samples:
            return None
        busy = samples[-1][1] - samples[0][1]
        if busy < ENOUGH_BUSY_SECONDS:
            return None
        return (samples[-1][2] - samples[0][2]) / busy

    def is_slow(self, now: float, node: str) -> bool:
        """Whether others send ten times as fast.

        Who sends nothing at all is not slow: it waits for its own origin, or is silent (health.py).
        """
        own = self.bytes_per_second(now, node)
        rates = (self.bytes_per_second(now, n) for n in self._senders if n not in (node, ORIGIN))
        known = [rate for rate in rates if rate is not None]
        if not own or not known:
            return False
        return own * SLOW_FACTOR < statistics.median(known)

    def origin_may_be_faster(self, now: float, node: str) -> bool:
        """Whether to read the origin in its place may help: not where that is as slow for us."""
        own, origin = self.bytes_per_second(now, node), self.bytes_per_second(now, ORIGIN)
        return own is None or origin is None or own * 2 < origin
