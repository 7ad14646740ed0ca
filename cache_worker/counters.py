"""What a worker counts, and the last thing it heard of its origin. Plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cacheop.api.errors import CacheopError


@dataclass(slots=True)
class Counters:
    """What the worker counts. Bytes and requests since it started."""

    origin_bytes: int = 0
    version_origin_bytes: dict[str, int] = field(default_factory=dict)
    """`origin_bytes` by the version that asked."""
    demand_origin_bytes: int = 0
    """The part of `origin_bytes` that a reader waited for."""
    hedged_origin_bytes: int = 0
    """The part of `origin_bytes` read in place of an owner that was there, but too slow."""
    peer_bytes: int = 0
    """Bytes of chunks that came from peers."""
    gathered_bytes: int = 0
    """The part of `peer_bytes` that was fetched ahead (gathering.py)."""
    planned_bytes: int = 0
    """Bytes of chunks fetched ahead because a job told that it will read them (planning/)."""
    wanted_bytes: int = 0
    """Bytes of chunks that readers here asked for and that were not here."""
    origin_requests: dict[str, int] = field(default_factory=lambda: {"get": 0, "list": 0})
    origin_errors: int = 0
    read_bytes: dict[str, int] = field(default_factory=lambda: {"local": 0, "through": 0})
    """local: read from the store by readers, as far as they told; through: sent in answers."""
    read_requests: dict[str, int] = field(default_factory=lambda: {"local": 0, "through": 0})
    misses: int = 0
    """Read requests that had to wait for a fill."""

    def sources(self) -> dict[str, int]:
        """Where bytes came from: read here as far as readers told, from peers, from the origin."""
        return {
            "local": self.read_bytes["local"],
            "peer": self.peer_bytes,
            "origin": self.origin_bytes,
        }


@dataclass(slots=True)
class OriginHealth:
    """The last thing the origin did."""

    error: CacheopError | None = None

    def failed(self, error: CacheopError) -> None:
        """It did not answer as it should."""
        self.error = error

    def worked(self) -> None:
        """It answered."""
        self.error = None
