"""How each peer does, and so what may be asked of it and how long to wait. Pure: `now` comes in.

A peer that refuses, breaks off or is silent is left alone for a moment that doubles; then one
request tries it, and its result decides. A peer that sends bad bytes, or is silent again when
tried, is banned. Latencies are those of whole chunks, from the question to the checked bytes.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

from cache_worker.cluster.latencies import Latencies

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Literal

    from cache_worker.cluster.view import Member

    Circuit = Literal["closed", "open", "half-open"]

FIRST_REST_SECONDS = 0.5
LONGEST_REST_SECONDS = 8.0
TRIAL_SECONDS = 5.0
"""A trial that says nothing for so long (its reader gave up) lets another one begin."""
BAN_SECONDS = 30.0
HEDGE_FACTOR = 3.0
HEDGE_SECONDS = (0.05, 2.0)
DEFAULT_HEDGE_SECONDS = 0.5
ORIGIN_HEDGE_FACTOR = 10.0


@dataclass(slots=True)
class Peer:
    """What is known of one peer."""

    failures: int = 0
    """Rests in a row; 0 = the circuit is closed."""
    rests_until: float = -inf
    trial: bool = False
    """It rests for all but one request, which tries it."""
    banned: bool = False
    """It rests for what it sent: no answer ends that early."""
    silent: bool = False
    """Its last failure was silence."""
    instance: str = ""
    latencies: Latencies = field(default_factory=Latencies)


@dataclass(slots=True)
class RetryBudget:
    """Retries and hedges may be `share` of the requests, and a few more each second.

    So that a cluster in trouble is not asked for more than one that is well.
    """

    share: float = 0.2
    per_second: float = 2.0
    most: float = 64.0
    """As many at once, when all that a dead peer was asked for goes to others."""
    tokens: float = 64.0
    _filled_at: float = -inf

    def request(self) -> None:
        """Something was asked for the first time."""
        self.tokens = min(self.most, self.tokens + self.share)

    def spend(self, now: float) -> bool:
        """Whether something may be asked once more; True takes a token."""
        if self._filled_at > -inf:
            passed = max(0.0, now - self._filled_at)
            self.tokens = min(self.most, self.tokens + passed * self.per_second)
        self._filled_at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


@dataclass(slots=True)
class Health:
    """All peers, by node. A peer not heard of is well."""

    budget: RetryBudget = field(default_factory=RetryBudget)
    _peers: dict[str, Peer] = field(default_factory=dict)

    def keep(self, now: float, members: Iterable[Member]) -> None:
        """Forget who is gone, and how who was started again did before. Bans stay."""
        instances = {member.node: member.instance for member in members}
        for node, peer in list(self._peers.items()):
            restarted = peer.instance and peer.instance != instances.get(node)
            if (restarted or node not in instances) and not self.banned(now, node):
                del self._peers[node]
        for node, instance in instances.items():
            self._peer(node).instance = instance

    def circuit(self, now: float, node: str) -> Circuit:
        """Closed: ask it. Open: do not. Half-open: one request may try it."""
        peer = self._peer(node)
        if not peer.failures:
            return "closed"
        return "open" if now < peer.rests_until else "half-open"

    def ask(self, now: float, node: str) -> bool:
        """Whether to ask it now. When half-open, the caller that gets True is the trial."""
        circuit = self.circuit(now, node)
        if circuit == "half-open":
            peer = self._peer(node)
            peer.trial, peer.banned, peer.rests_until = True, False, now + TRIAL_SECONDS
        return circuit != "open"

    def banned(self, now: float, node: str) -> bool:
        """Whether nothing that it has is wanted, not even what is on its way."""
        peer = self._peer(node)
        return peer.banned and now < peer.rests_until

    def answered(self, now: float, node: str, seconds: float | None) -> None:
        """It gave a chunk after `seconds`; None: it gave another proper answer."""
        peer = self._peer(node)
        if seconds is not None:
            peer.latencies.add(now, seconds)
        if not self.banned(now, node):
            peer.failures, peer.rests_until = 0, -inf
            peer.trial = peer.banned = peer.silent = False

    def outrun(self, now: float, node: str, waited_seconds: float) -> None:
        """Another was quicker and the request was cancelled: it takes at least so long."""
        self._peer(node).latencies.add(now, waited_seconds)

    def refused(self, now: float, node: str) -> None:
        """It did not let us connect, or broke off."""
        if self._counts(now, node):
            self._rest(now, node)

    def silent(self, now: float, node: str) -> bool:
        """It sent nothing by the deadline. True: that is a ban, as it was so the last time."""
        if not self._counts(now, node):
            return False
        if self._peer(node).silent:
            return self.sent_bad(now, node)
        self._rest(now, node)
        self._peer(node).silent = True
        return False

    def sent_bad(self, now: float, node: str) -> bool:
        """It sent garbage, or bytes that fail their checksum: a ban. True: a new one."""
        if self.banned(now, node):
            return False
        self._rest(now, node)
        peer = self._peer(node)
        peer.banned, peer.rests_until = True, now + BAN_SECONDS
        return True

    def hedge_after_seconds(self, now: float, node: str) -> float:
        """When to ask holders of copies as well, if it has not answered."""
        p99 = self.p99_seconds(now, node)
        if p99 is None:
            return DEFAULT_HEDGE_SECONDS
        shortest, longest = HEDGE_SECONDS
        return min(longest, max(shortest, HEDGE_FACTOR * p99))

    def may_hedge_to_origin(self, now: float, node: str, waited_seconds: float) -> bool:
        """Whether it is so much slower than the others that the origin may be read in its place.

        False when there are no others to compare with: only a failure leads to the origin then.
        """
        if waited_seconds < self.hedge_after_seconds(now, node):
            return False
        others = [self.p99_seconds(now, other) for other in self._peers if other != node]
        known = [p99 for p99 in others if p99 is not None]
        own = max(waited_seconds, self.p99_seconds(now, node) or 0.0)
        return bool(known) and own > ORIGIN_HEDGE_FACTOR * statistics.median(known)

    def is_slow(self, now: float, node: str) -> bool:
        """Whether it is slow all the time: half of its chunks take so much longer than others'.

        Then the next in order acts in its place, until the window has forgotten its latencies.
        """
        own = self.p50_seconds(now, node)
        if own is None or own < HEDGE_SECONDS[0]:
            return False
        others = [self.p50_seconds(now, other) for other in self._peers if other != node]
        known = [p50 for p50 in others if p50 is not None]
        return bool(known) and own > ORIGIN_HEDGE_FACTOR * statistics.median(known)

    def p50_seconds(self, now: float, node: str) -> float | None:
        """Half of its chunks come quicker; None before there are enough."""
        return self._peer(node).latencies.quantile(now, 0.50)

    def p99_seconds(self, now: float, node: str) -> float | None:
        """All but one in a hundred of its chunks come quicker; None before there are enough."""
        return self._peer(node).latencies.quantile(now, 0.99)

    def _peer(self, node: str) -> Peer:
        return self._peers.setdefault(node, Peer())

    def _counts(self, now: float, node: str) -> bool:
        """False for what was asked before the rest began: what fails together is one failure."""
        return self._peer(node).trial or self.circuit(now, node) != "open"

    def _rest(self, now: float, node: str) -> None:
        peer = self._peer(node)
        seconds = min(LONGEST_REST_SECONDS, FIRST_REST_SECONDS * 2.0 ** min(peer.failures, 9))
        peer.failures += 1
        peer.trial = peer.banned = peer.silent = False
        peer.rests_until = now + seconds
