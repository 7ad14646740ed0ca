"""Keep what came first, read the rest through. Pure.

The best a plain cache can do on shuffled epochs: it hits the share of the Dataset that it holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache_worker.eviction.policy import Policy

if TYPE_CHECKING:
    from cache_worker.eviction.policy import Held


class NoEvict(Policy):
    """Nothing goes."""

    def victims(self, held: Held, need_bytes: int, newcomer: int | None = None) -> list[int]:
        """See Policy."""
        del held, need_bytes, newcomer
        return []
