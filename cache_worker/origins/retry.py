"""How long to wait before asking the origin again. Pure.

Exponential backoff with full jitter: a random wait in [0, base * 2^n], so that many readers hit by
the same 503 storm do not come back together (AWS Architecture Blog, "Exponential Backoff and
Jitter"). A reader waits for the bytes, so all attempts together end after about BUDGET_SECONDS.
"""

from __future__ import annotations

BASE_SECONDS = 0.1
CEILING_SECONDS = 4.0
BUDGET_SECONDS = 20.0


def next_delay(
    attempt: int,
    elapsed_seconds: float,
    rnd: float,
    *,
    attempts: int | None = None,
    budget_seconds: float = BUDGET_SECONDS,
) -> float | None:
    """Seconds to wait after failed attempt number `attempt` (from 1); None = give up.

    `rnd` is uniform in [0, 1). `attempts` bounds how often is asked altogether. The first failure
    is always followed by a second attempt: a transfer that moved for a minute and was then cut has
    used up its budget, but the origin is alive.
    """
    if attempts is not None and attempt >= attempts:
        return None
    delay = rnd * min(CEILING_SECONDS, BASE_SECONDS * 2.0**attempt)
    if attempt > 1 and elapsed_seconds + delay >= budget_seconds:
        return None
    return delay
