"""Eviction policies: pure objects that choose, and never delete. One policy a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache_worker.eviction.auto import Auto
from cache_worker.eviction.lru import LRU
from cache_worker.eviction.noevict import NoEvict
from cache_worker.eviction.sieve import Sieve
from cacheop.api.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cache_worker.eviction.policy import Policy

POLICIES: dict[str, Callable[[], Policy]] = {
    "Auto": Auto,
    "LRU": LRU,
    "SIEVE": Sieve,
    "NoEvict": NoEvict,
}


def policy_named(name: str) -> Policy:
    """A new one. UserError when there is none of that name."""
    if name not in POLICIES:
        raise UserError(f"spec.cache.eviction.policy {name} is not in this version")
    return POLICIES[name]()
