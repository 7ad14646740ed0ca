"""Eviction policies: pure objects that choose, and never delete. One policy a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from cache_worker.eviction.lru import LRU
from cache_worker.eviction.noevict import NoEvict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a policy may know of a file (or of the part of it that is here)."""

    first_slot: int
    cached_bytes: int
    accessed_seconds: int
    """Seconds since the epoch of the last known use."""
    reads: int
    owned_bytes: int = 0
    """The part of `cached_bytes` that this node owns in the cluster: likely its only copy there."""


class Policy(Protocol):
    """Chooses victims among sampled candidates."""

    def victims(self, candidates: Sequence[Candidate], need_bytes: int) -> list[Candidate]:
        """Which of `candidates` to evict so that at least `need_bytes` go, in order.

        Fewer bytes when the candidates hold no more; empty when nothing may be evicted.
        """
        ...


POLICIES: dict[str, Callable[[], Policy]] = {"Auto": LRU, "LRU": LRU, "NoEvict": NoEvict}
"""Auto is LRU for now; see docs/decisions/eviction.md."""
