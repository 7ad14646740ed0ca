"""How fast peers, and the origin, send while something is asked of them. Pure: `now` comes in.

Latencies mix the way of a chunk with its wait in queues; bytes a second do not. So a peer behind a
thin link is found within a second, while its first chunks are still on their way.
"""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass, field

from cache_worker.cluster.latencies import Latencies

ORIGIN = ""
"""The name that the origin goes by among the nodes."""
SLOW_FACTOR = 10.0
SHORTEST_SECONDS, LONGEST_SECONDS = 3.0, 30.0
"""Busy seconds that a rate is taken of."""
ENOUGH = 0.5
"""Of those, to tell at all."""
WINDOW_CHUNKS = 8
"""An owner sends nothing while it waits for the origin, and then much at once: so it is compared
over the time in which the others send so many chunks."""
LOOK_SECONDS = 0.1
SAMPLE_SECONDS = 0.05
FORGET_SECONDS = 60.0
"""A peer that was found slow is not asked; after this it is tried again."""


@dataclass(slots=True)
class Sender:
    """One that sends. Busy while anything asked of it is under way."""

    asked: int = 0
    chunk_bytes: int = 0
    """What it was asked for last."""
    busy_seconds: float = 0.0
    busy_since: float = 0.0
    samples: deque[tuple[float, float, int]] = field(default_factory=lambda: deque(maxlen=1024))
    """(now, busy seconds, bytes) so far."""

    def busy(self, now: float) -> float:
        """Seconds that it was busy."""
        return self.busy_seconds + (now - self.busy_since if self.asked else 0.0)


@dataclass(slots=True)
class Pace:
    """All senders, by node."""

    origin: Latencies = field(default_factory=Latencies)
    """How long our own reads of the origin took."""
    _senders: dict[str, Sender] = field(default_factory=dict)
    _judged: dict[str, tuple[float, bool]] = field(default_factory=dict)

    def asks(self, now: float, node: str, total_bytes: int, length_bytes: int = 0) -> None:
        """`length_bytes` are asked of it, which sent `total_bytes` so far."""
        sender = self._senders.setdefault(node, Sender())
        sender.chunk_bytes = length_bytes
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
        samples = sender.samples
        if len(samples) > 1 and samples[-1][0] - samples[-2][0] < SAMPLE_SECONDS:
            samples.pop()
        samples.append((now, sender.busy(now), total_bytes))

    def bytes_per_second(
        self, now: float, node: str, seconds: float = SHORTEST_SECONDS
    ) -> float | None:
        """What it sent in its last busy `seconds`; None when it was not busy for long enough."""
        samples = self._samples(now, node)
        if not samples:
            return None
        _, end, total = samples[-1]
        begin, before = end, total
        for _, busy, count in reversed(samples):
            begin, before = busy, count
            if end - busy >= seconds:
                break
        if end - begin < ENOUGH * seconds:
            return None
        return (total - before) / (end - begin)

    def _samples(self, now: float, node: str) -> deque[tuple[float, float, int]]:
        sender = self._senders.get(node)
        if sender is None:
            return deque()
        samples = sender.samples
        while samples and samples[0][0] < now - FORGET_SECONDS:
            samples.popleft()
        while len(samples) > 2 and samples[-1][1] - samples[1][1] >= LONGEST_SECONDS:
            samples.popleft()
        return samples

    def is_slow(self, now: float, node: str) -> bool:
        """Whether others send ten times as fast; looked at ten times a second at most.

        Who sends nothing at all is not slow: it waits for its own origin, or is silent (health.py).
        """
        looked, slow = self._judged.get(node, (-LOOK_SECONDS, False))
        if not looked <= now < looked + LOOK_SECONDS:
            slow = self._is_slow(now, node)
            self._judged[node] = now, slow
        return slow

    def _is_slow(self, now: float, node: str) -> bool:
        rates = (self.bytes_per_second(now, n) for n in self._senders if n not in (node, ORIGIN))
        known = [rate for rate in rates if rate is not None]
        usual = statistics.median(known) if known else 0.0
        if not usual or node not in self._senders:
            return False
        wanted = WINDOW_CHUNKS * self._senders[node].chunk_bytes / usual
        seconds = min(LONGEST_SECONDS, max(SHORTEST_SECONDS, wanted))
        own = self.bytes_per_second(now, node, seconds)
        return bool(own) and (own or 0.0) * SLOW_FACTOR < usual

    def origin_may_be_faster(self, now: float, node: str) -> bool:
        """Whether to read the origin in its place may help: not where that is as slow for us."""
        own, origin = self.bytes_per_second(now, node), self.bytes_per_second(now, ORIGIN)
        return own is None or origin is None or own * 2 < origin

    def origin_answers_within(self, now: float, seconds: float) -> bool:
        """Whether our own reads of the origin hardly ever take so long, their wait included."""
        usual = self.origin.quantile(now, 0.99, enough=1)
        return usual is None or usual < seconds
