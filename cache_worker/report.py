"""What a worker says of itself: the status of docs/protocol.md from plain facts. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cacheop.api.errors import CacheopError, to_wire

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Facts:
    """A worker at one moment."""

    version: str
    bytes_total: int
    cached_bytes: int
    """Of the current version."""
    quota_bytes: int
    used_bytes: int
    suspended: bool
    indexing: bool
    index_error: CacheopError | None
    origin_error: CacheopError | None
    disk_fault: str
    short_of_disk: bool
    origin_bytes: int
    demand_origin_bytes: int
    read_bytes: int
    local_read_bytes: int
    """The part of `read_bytes` that readers told of themselves."""
    unseen_reads: bool
    """Every mount is of a kind whose reads nobody can count."""
    pinned_above_quota: frozenset[str]
    """Versions that Native mounts pin and for which the quota cannot be kept."""


def phase(facts: Facts) -> str:
    """Pending, Indexing, Ready or Failed."""
    if facts.version:
        return "Ready"
    if facts.indexing:
        return "Indexing"
    return "Failed" if facts.index_error else "Pending"


def hit_ratio(facts: Facts) -> float | None:
    """1 - bytes fetched because a reader waited / bytes read; None when nothing was read.

    None too when all mounts are ZeroOpen or Native and no client told of its reads: there the
    kernel answers from its own pages, so misses are all that we see, and they would say 0.
    """
    if not facts.read_bytes or (facts.unseen_reads and not facts.local_read_bytes):
        return None
    return round(max(0.0, 1 - facts.demand_origin_bytes / facts.read_bytes), 4)


def conditions(facts: Facts) -> list[dict[str, str]]:
    """Positive polarity: True is good, in the order a person wants to read them."""
    ready = phase(facts)
    found = [
        _condition(
            "Ready", ready == "Ready", ready, f"version {facts.version}" if facts.version else ready
        ),
        _condition(
            "Indexed",
            bool(facts.version) and facts.index_error is None,
            "Indexed" if facts.index_error is None else type(facts.index_error).__name__,
            str(facts.index_error or ""),
        ),
    ]
    if facts.suspended:
        why = "the origin is not read until `cacheop resume`"
        found.append(_condition("OriginReachable", None, "Suspended", why))
    else:
        error = facts.origin_error
        reason = type(error).__name__ if error else "Answers"
        found.append(_condition("OriginReachable", error is None, reason, str(error or "")))
    if facts.disk_fault:
        found.append(_condition("Healthy", False, "DiskFault", f"{facts.disk_fault}: read through"))
    elif facts.short_of_disk and not facts.pinned_above_quota:
        why = "the file system is full below the quota: what does not fit is read through"
        found.append(_condition("Healthy", False, "DiskFull", why))
    elif facts.pinned_above_quota:
        pinned = ", ".join(sorted(facts.pinned_above_quota))
        why = f"Native mounts show version {pinned}, so it stays; what does not fit is read through"
        found.append(_condition("Healthy", False, "Pinned", why))
    else:
        found.append(_condition("Healthy", True, "Stores", ""))
    return found


def _condition(kind: str, status: bool | None, reason: str, message: str) -> dict[str, str]:
    words = {True: "True", False: "False", None: "Unknown"}
    return {"type": kind, "status": words[status], "reason": reason, "message": message}


def status(
    facts: Facts, identity: Mapping[str, Any], skipped: Mapping[str, Any], rest: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything `cacheop status -o json` shows for this node."""
    total = facts.bytes_total
    error = facts.index_error if not facts.version else None
    return {
        **identity,
        "phase": phase(facts),
        "version": facts.version,
        "bytes_total": total,
        "cached_bytes": facts.cached_bytes,
        "cached_percentage": round(100 * facts.cached_bytes / total, 2) if total else 100.0,
        "quota_bytes": facts.quota_bytes,
        "used_bytes": facts.used_bytes,
        "suspended": facts.suspended,
        "hit_ratio": hit_ratio(facts),
        "origin_bytes": facts.origin_bytes,
        "origin_ratio": round(facts.origin_bytes / total, 4) if total else None,
        "read_bytes": facts.read_bytes,
        "skipped": skipped,
        "conditions": conditions(facts),
        "error": to_wire(error) if error else None,
        **rest,
    }
