"""What of a Dataset can change while its worker runs, and what that means for it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from cache_worker.space import DEFAULT_QUOTA_SHARE
from cacheop.api.errors import UserError

if TYPE_CHECKING:
    from cacheop.api.dataset import Dataset, DatasetSpec, Tier


@dataclass(frozen=True, slots=True)
class Change:
    """From one spec to another."""

    fields: tuple[str, ...] = ()
    """The fields of the spec that differ."""
    reopens: bool = False
    """Mounts, or their options or credentials, differ."""
    relists: bool = False
    """A new version is to be made."""
    preloads: bool = False


def compare(old: Dataset, new: Dataset) -> Change:
    """What differs. UserError names what cannot be changed while the worker runs, and why."""
    if (old.namespace, old.name) != (new.namespace, new.name):
        raise UserError(
            f"this worker serves {old.namespace}/{old.name}, not {new.namespace}/{new.name}"
        )
    before, after = old.spec, new.spec
    the_tier(after)
    if before.placement != after.placement:
        raise UserError(
            "spec.placement: workers that do not agree on it would fetch chunks twice",
            hint="It is changed when all workers of the Dataset are started again",
        )
    where = [(m.mount_point, m.path) for m in before.mounts]
    return Change(
        fields=tuple(
            field.name
            for field in fields(after)
            if getattr(before, field.name) != getattr(after, field.name)
        ),
        reopens=before.mounts != after.mounts,
        relists=where != [(m.mount_point, m.path) for m in after.mounts]
        or before.refresh.requested_at != after.refresh.requested_at,
        preloads=before.preload != after.preload,
    )


def the_tier(spec: DatasetSpec) -> Tier | None:
    """The Dataset's tier; None = as is the default. UserError for tiers not built yet."""
    tiers = spec.cache.tiers
    if len(tiers) > 1 or (tiers and tiers[0].medium != "Disk"):
        raise UserError(
            "spec.cache.tiers: this version keeps one tier with `medium: Disk`",
            hint="For memory, put the cache directory on a tmpfs: `cacheop up --cache /dev/shm/…`",
        )
    return tiers[0] if tiers else None


def quota_bytes(spec: DatasetSpec, disk_bytes: int, share_bytes: int | None) -> int:
    """What the tier may hold: its quota, else its share of the node's disk, else most of the disk.

    `share_bytes`: what the node plugin says, if there is one.
    """
    tier = the_tier(spec)
    if tier is not None and tier.quota_bytes:
        return tier.quota_bytes
    whole = int(disk_bytes * DEFAULT_QUOTA_SHARE)
    return whole if share_bytes is None else min(whole, share_bytes)


def policy_name(spec: DatasetSpec) -> str:
    """The eviction policy that the spec asks for."""
    return "NoEvict" if spec.cache.pin else spec.cache.eviction.policy
