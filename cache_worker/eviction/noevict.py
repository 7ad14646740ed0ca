"""Keep what came first, read the rest through: the best a plain cache can do on shuffled epochs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cache_worker.eviction import Candidate


class NoEvict:
    """Nothing goes."""

    def victims(self, candidates: Sequence[Candidate], need_bytes: int) -> list[Candidate]:
        """See Policy."""
        del candidates, need_bytes
        return []
