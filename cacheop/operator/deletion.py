"""Deleting a Dataset: wait for who uses it, remove what lies elsewhere, then always end. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cacheop.api.dataset import Deletion

if TYPE_CHECKING:
    from collections.abc import Collection

    from cacheop.operator.facts import UserPod

GIVE_UP_SECONDS = 120.0
"""After the timeout: what could not be removed by then is left, and said."""
NAMED = 5
FORCED = Deletion(when_mounted="Force")


@dataclass(frozen=True, slots=True)
class Step:
    """What deleting comes to now."""

    waits: str = ""
    """For whom, in words; empty when nobody is waited for."""
    remove: bool = False
    """Volumes, and claims in other namespaces, are to go."""
    release: bool = False
    """The finalizer goes."""
    again_at: float | None = None


def step(
    rule: Deletion,
    users: Collection[UserPod],
    deleted_at: float,
    now: float,
    remaining: Collection[object],
) -> Step:
    """The next step. `remaining`: volumes, and claims elsewhere, that are not yet being deleted."""
    deadline = deleted_at + rule.timeout_seconds
    if users and rule.when_mounted == "Wait" and now < deadline:
        return Step(waits=words(users), again_at=deadline)
    if remaining and now < deadline + GIVE_UP_SECONDS:
        return Step(remove=True, again_at=min(now + 5, deadline + GIVE_UP_SECONDS))
    return Step(remove=bool(remaining), release=True)


def words(users: Collection[UserPod]) -> str:
    """Who uses it."""
    names = sorted(f"{pod.namespace}/{pod.name}" for pod in users)
    shown = ", ".join(names[:NAMED])
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"in use by pod {shown}{more}" if len(names) == 1 else f"in use by pods {shown}{more}"
