"""All that one pass knows of a Dataset, as plain data. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cacheop.operator.facts import Node, UserPod, WorkerPod
    from cacheop.operator.kinds import Ref
    from cacheop.operator.placement import Drain
    from cacheop.operator.reports import Report


@dataclass(frozen=True, slots=True)
class Child:
    """An object that we made, as it is now."""

    ref: Ref
    uid: str
    fingerprint: str
    phase: str = ""
    """Of volumes and claims."""
    deleting: bool = False
    dataset_uid: str = ""
    """Whose it is, as its owner reference or label says."""
    named: frozenset[str] = frozenset()
    """Of a DaemonSet: the nodes it names."""


@dataclass(frozen=True, slots=True)
class Preload:
    """How far spec.preload is for the current version."""

    version: str
    percentage: int
    finished: bool
    failed: str = ""


@dataclass(frozen=True, slots=True)
class Observed:
    """What is known of one Dataset. Times are seconds since the epoch."""

    now: float
    nodes: Mapping[str, Node]
    users: tuple[UserPod, ...] = ()
    workers: tuple[WorkerPod, ...] = ()
    reports: Mapping[str, Report] = field(default_factory=dict)
    """By the uid of the pod."""
    plugins: frozenset[str] = frozenset()
    """Nodes whose node plugin is ready."""
    children: Mapping[Ref, Child] = field(default_factory=dict)
    current: frozenset[str] = frozenset()
    """Nodes that the DaemonSet names."""
    last_use: Mapping[str, float] = field(default_factory=dict)
    drains: Mapping[str, Drain] = field(default_factory=dict)
    """By node."""
    wake: bool = False
    """A DataLoad or preload needs a worker."""
    accepting: Mapping[str, str] = field(default_factory=dict)
    """Namespaces of shareWith -> why not; empty text = it accepts."""
    taken: Mapping[Ref, str] = field(default_factory=dict)
    """Names that are somebody else's object's -> whose."""
    failures: str = ""
    """Why the DaemonSet controller could make no pod."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Pod uid -> why this worker takes the spec only by a new start."""
    errors: tuple[str, ...] = ()
    """What the API server did not let us do."""
    preload: Preload | None = None
    look_again_at: float | None = None
    """When something can be asked again that was not asked now."""
    refreshed: str = ""
    """spec.refresh.requestedAt as it was carried out by this process."""


def rfc3339(seconds: float) -> str:
    """A moment as Kubernetes writes it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_of(text: str | None) -> float | None:
    """The inverse of rfc3339; None for what is none."""
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None
