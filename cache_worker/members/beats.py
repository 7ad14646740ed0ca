"""Which members are live, told from the beats that they leave in Redis. Pure.

A beat is Redis's own time when the member wrote it, and to us only a value that changes: a member
lives as long as we see new ones, by our own monotonic clock. So no two clocks are ever compared:
Redis's is only with itself, and only for members of whom we see the first beat.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cache_worker.cluster.view import Member

    Entries = Mapping[str, tuple[Member, int]]
    """node -> (what it announced, its beat)."""

ROUND_SECONDS = 1.0
GONE_SECONDS = 4.0
RETRY_MAX_SECONDS = 2.0
GAP_SECONDS = 2.5
"""Longer between two rounds: what held us up may have held up others too."""
FORGOTTEN_MS = 600_000


@dataclass(frozen=True, slots=True)
class Known:
    """What we know of one member."""

    member: Member
    beat_ms: int
    gone_at: float
    """By our clock: when it counts as gone, unless a new beat comes."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What we knew after a round."""

    known: Mapping[str, Known] = field(default_factory=dict)
    at: float = -math.inf
    """By our clock: when that was."""

    def live(self) -> list[Member]:
        """The members that were live then."""
        return [known.member for known in self.known.values() if known.gone_at > self.at]


def listen(
    before: Heard, entries: Entries, *, redis_ms: int, now: float, reconnected: bool
) -> Heard:
    """What we know after a round that found `entries` when Redis's clock said `redis_ms`.

    Time that Redis was away counts against nobody, nor does what others may need to come back:
    a flushed or restarted Redis changes no view.
    """
    gap = reconnected or now - before.at > GAP_SECONDS
    grace = now + GONE_SECONDS + RETRY_MAX_SECONDS
    known = {}
    for node, old in before.known.items():
        gone_at = max(old.gone_at, grace) if gap and old.gone_at > before.at else old.gone_at
        if gone_at > now or node in entries:
            known[node] = Known(old.member, old.beat_ms, gone_at)
    for node, (member, beat_ms) in entries.items():
        old_one = known.get(node)
        if old_one is None:
            age_seconds = max(0.0, (redis_ms - beat_ms) / 1000)
            known[node] = Known(member, beat_ms, now + GONE_SECONDS - age_seconds)
        elif old_one.beat_ms != beat_ms:
            known[node] = Known(member, beat_ms, max(old_one.gone_at, now + GONE_SECONDS))
    return Heard(known, now)


def forgotten(entries: Entries, heard: Heard, redis_ms: int) -> list[str]:
    """The nodes whose entries nobody needs any more."""
    return [
        node
        for node, (_, beat_ms) in entries.items()
        if abs(redis_ms - beat_ms) > FORGOTTEN_MS and heard.known[node].gone_at <= heard.at
    ]
