"""What workers say of themselves (docs/protocol.md), and what it comes to together. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, slots=True)
class Said:
    """A condition as a worker tells it."""

    type: str
    status: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Report:
    """One worker at one moment."""

    node: str
    phase: str
    version: str = ""
    generation: int = 0
    file_count: int = 0
    bytes_total: int = 0
    cached_bytes: int = 0
    owned_cached_bytes: int | None = None
    zone: str = ""
    suspended: bool = False
    draining: bool = False
    hit_ratio: float | None = None
    read_bytes: int = 0
    origin_bytes: int = 0
    indexing_keys: int | None = None
    modes: tuple[str, ...] = ()
    conditions: tuple[Said, ...] = ()
    error: str = ""


def read_report(raw: Mapping[str, Any]) -> Report:
    """The answer to `status`."""
    owned, indexing, error = raw.get("owned_cached_bytes"), raw.get("indexing"), raw.get("error")
    return Report(
        node=str(raw.get("node") or ""),
        phase=str(raw.get("phase") or "Pending"),
        version=str(raw.get("version") or ""),
        generation=int(raw.get("generation") or 0),
        file_count=int(raw.get("file_count") or 0),
        bytes_total=int(raw.get("bytes_total") or 0),
        cached_bytes=int(raw.get("cached_bytes") or 0),
        owned_cached_bytes=None if owned is None else int(owned),
        zone=str(raw.get("zone") or ""),
        suspended=bool(raw.get("suspended")),
        draining=bool(raw.get("draining")),
        hit_ratio=raw.get("hit_ratio"),
        read_bytes=int(raw.get("read_bytes") or 0),
        origin_bytes=int(raw.get("origin_bytes") or 0),
        indexing_keys=int(indexing.get("keys") or 0) if indexing else None,
        modes=tuple(str(mount.get("mode") or "") for mount in raw.get("mounts") or ()),
        conditions=tuple(
            Said(c["type"], c["status"], c.get("reason") or "Unknown", c.get("message") or "")
            for c in raw.get("conditions") or ()
        ),
        error=_words(error) if error else "",
    )


def _words(error: Mapping[str, Any]) -> str:
    parts = (str(error.get(key) or "") for key in ("message", "hint"))
    return ". ".join(part for part in parts if part)


def version_of(reports: Iterable[Report], pinned: str, known: str) -> str:
    """The version that new mounts get: the pinned one, else what most workers have.

    A new one once no worker that answers still has the one before: then pods get it on every node.
    """
    if pinned:
        return pinned
    counted = Counter(report.version for report in reports if report.version)
    if not counted or known in counted:
        return known
    most = max(counted.values())
    return min(version for version, count in counted.items() if count == most)


def unique_cached_bytes(reports: Iterable[Report]) -> int:
    """Copies counted once: what each holds of its own share; each zone is to have all."""
    zones: dict[str, int] = {}
    for report in reports:
        own = report.owned_cached_bytes
        zones[report.zone] = zones.get(report.zone, 0) + (
            report.cached_bytes if own is None else own
        )
    return max(zones.values(), default=0)


def hit_ratio(reports: Iterable[Report]) -> float | None:
    """Weighted by bytes read; None when no worker knows."""
    known = [(r.hit_ratio, r.read_bytes) for r in reports if r.hit_ratio is not None]
    if not known:
        return None
    read = sum(count for _, count in known)
    if not read:
        return sum(ratio for ratio, _ in known) / len(known)
    return sum(ratio * count for ratio, count in known) / read


def mode_of(reports: Iterable[Report]) -> str:
    """The mode of all mounts, or Mixed; empty when there is no mount."""
    modes = {mode for report in reports for mode in report.modes if mode}
    return "Mixed" if len(modes) > 1 else next(iter(modes), "")


def worst(reports: Iterable[Report], kind: str) -> Said | None:
    """Of all that is said of one condition what is furthest from True."""
    said = [c for report in reports for c in report.conditions if c.type == kind]
    order = {"False": 0, "Unknown": 1, "True": 2}
    return min(said, key=lambda c: order.get(c.status, 1), default=None)
