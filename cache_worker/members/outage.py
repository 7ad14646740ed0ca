"""A Redis that is away: how long to wait before the next try, and what to log of it, once."""

from __future__ import annotations

import logging
import random

from cache_worker.members.beats import RETRY_MAX_SECONDS

log = logging.getLogger("cacheop.members")

RETRY_FIRST_SECONDS = 0.1


class Outage:
    """The tries since the last success. `who` begins each log line."""

    def __init__(self, who: str, meanwhile: str) -> None:
        self._who = who
        self._meanwhile = meanwhile
        """What holds until it is over, for the log."""
        self._failures = 0
        self._said: set[str] = set()

    def failed(self, error: OSError) -> float:
        """Seconds to wait now."""
        reason = str(error).rstrip(".") or "no answer in time"
        if reason not in self._said:
            log.warning("%s: %s. %s", self._who, reason, self._meanwhile)
            self._said.add(reason)
        self._failures += 1
        return retry_seconds(self._failures, random.random())

    def over(self) -> None:
        """It worked."""
        if self._said:
            log.info("%s: answers again", self._who)
            self._said.clear()
        self._failures = 0


def retry_seconds(failures: int, chance: float) -> float:
    """The pause after so many failures in a row; `chance` in [0, 1) spreads many workers' tries."""
    longest = min(RETRY_FIRST_SECONDS * 2.0 ** min(failures, 16), RETRY_MAX_SECONDS)
    return longest * (0.5 + 0.5 * chance)
