"""Least recently used, among a sample (as Redis does it): no list to keep, no lock to take."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cache_worker.eviction import Candidate


class LRU:
    """The longest unused go first."""

    def victims(self, candidates: Sequence[Candidate], need_bytes: int) -> list[Candidate]:
        """See Policy."""
        chosen: list[Candidate] = []
        for candidate in sorted(candidates, key=lambda c: c.accessed_seconds):
            if need_bytes <= 0:
                break
            chosen.append(candidate)
            need_bytes -= candidate.cached_bytes
        return chosen
