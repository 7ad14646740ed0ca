"""Which Datasets give up how much of a cache directory that they share; what grew too old. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Tenant:
    """One Dataset on a node."""

    name: str
    used_bytes: int
    floor_bytes: int = 0
    """Others never take these from it."""
    priority: int = 0
    """The lower gives way first."""

    @property
    def spare_bytes(self) -> int:
        """What it has above its floor."""
        return max(0, self.used_bytes - self.floor_bytes)


def give_up(tenants: Sequence[Tenant], need_bytes: int, *, asking: str = "") -> dict[str, int]:
    """Bytes that each gives up so that `need_bytes` come free, or as many as there are.

    By priority, the lowest first; those of one priority in proportion to what they can spare. For
    `asking` nothing is taken from who has a higher priority.
    """
    limit = next((t.priority for t in tenants if t.name == asking), None)
    result: dict[str, int] = {}
    for priority in sorted({t.priority for t in tenants if limit is None or t.priority <= limit}):
        group = [t for t in tenants if t.priority == priority and t.spare_bytes]
        spare = sum(t.spare_bytes for t in group)
        wanted = min(need_bytes, spare)
        for tenant in group:
            # Rounded up: a byte too many is no harm, a byte too few is a read through.
            share = min(tenant.spare_bytes, -(-wanted * tenant.spare_bytes // spare))
            result[tenant.name] = share
        need_bytes -= wanted
        if need_bytes <= 0:
            break
    return result


def is_expired(accessed_seconds: float, now_seconds: float, ttl_seconds: float | None) -> bool:
    """Whether a file was not read for longer than spec.cache.ttl."""
    return ttl_seconds is not None and now_seconds - accessed_seconds > ttl_seconds
