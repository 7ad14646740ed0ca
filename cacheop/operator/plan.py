"""One pass over a Dataset: from (document, observed) to what is to be done. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from cacheop.api.dataset import read_dataset
from cacheop.operator import deletion, hindrance, naming
from cacheop.operator.kinds import Ref, ref_of
from cacheop.operator.manifests import config, network, volume, workers
from cacheop.operator.manifests.owned import Owner
from cacheop.operator.observed import seconds_of
from cacheop.operator.placement import Placement, Situation, place
from cacheop.operator.rolling import to_replace
from cacheop.operator.status import Head, status

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cacheop.api.dataset import DatasetSpec
    from cacheop.operator.facts import WorkerPod
    from cacheop.operator.hindrance import Event
    from cacheop.operator.manifests.owned import Document
    from cacheop.operator.observed import Observed
    from cacheop.operator.settings import Settings, WorkerDefaults

LOCAL_SCHEMES = ("file://", "local://", "memory://")
"""The CRD refuses them too; a Dataset may be older than that rule."""
IDLE_SECONDS = 300.0
"""Every Dataset is looked at so often though nothing happened."""
SHARING_SECONDS = 30.0
"""Annotations of namespaces are not watched."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What one worker is to be told, by its control port."""

    pod: WorkerPod
    op: str
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """What one pass comes to."""

    status: Mapping[str, Any]
    finalizer: bool
    """Whether the Dataset is to carry ours."""
    objects: tuple[Document, ...] = ()
    """To be applied in this order."""
    remove: tuple[Ref, ...] = ()
    rebind: tuple[tuple[Ref, str], ...] = ()
    """Volumes that lost their claim, or it them; the uid of that claim, "" = any of its name."""
    replace: tuple[WorkerPod, ...] = ()
    """Worker pods to be deleted, so that a new one comes."""
    asks: tuple[Ask, ...] = ()
    events: tuple[Event, ...] = ()
    again_at: float | None = None
    placement: Placement | None = None
    owner: Owner | None = None
    """The Dataset as its workers are told it, with the chart's defaults; None: they are not."""


def plan(document: Mapping[str, Any], seen: Observed, settings: Settings) -> Plan:
    """What is to be done for the Dataset of `document` now."""
    metadata = document["metadata"]
    head = Head(metadata["name"], metadata.get("generation", 0), document.get("status") or {})
    bare = {key: value for key, value in document.items() if key != "status"}
    dataset, problems = read_dataset(bare)
    if metadata.get("deletionTimestamp"):
        spec = dataset.spec if dataset is not None else None
        return _delete(metadata, head, spec, seen)
    words = [str(problem) for problem in problems]
    if dataset is not None:
        words += kubernetes_problems(dataset.spec)
    if dataset is None or words:
        # What is there stays as it is: a slip in an edit stops nobody who reads.
        why = "; ".join(words)[:1000]
        return Plan(status(head, None, seen, None, why), finalizer=True)
    spec = _with_defaults(dataset.spec, settings.worker)
    owner = Owner(metadata["namespace"], metadata["name"], metadata["uid"], spec)
    return _serve(owner, head, seen, settings)


def _with_defaults(spec: DatasetSpec, defaults: WorkerDefaults) -> DatasetSpec:
    """What decides where workers may run, from the chart where the Dataset does not say it."""
    if spec.tolerations is None:
        return replace(spec, tolerations=defaults.tolerations)
    return spec


def kubernetes_problems(spec: DatasetSpec) -> list[str]:
    """What is right on a laptop and refused in a cluster."""
    return [
        f"spec.mounts[{k}].mountPoint: {mount.mount_point} is a place on one machine; "
        "put the files on a claim and write pvc://claim/path"
        for k, mount in enumerate(spec.mounts)
        if mount.mount_point.startswith(LOCAL_SCHEMES)
    ]


def situation(head: Head, seen: Observed, settings: Settings) -> Situation:
    """What placement looks at."""
    return Situation(
        now=seen.now,
        nodes=seen.nodes,
        current=seen.current,
        serving=frozenset(p.node for p in seen.workers if p.ready and not p.deleting),
        in_use=frozenset(pod.node for pod in seen.users if pod.node),
        holding=frozenset(n["name"] for n in head.before.get("nodes") or ()),
        last_use=seen.last_use,
        wake=seen.wake,
        drains=seen.drains,
        drain_seconds=settings.drain_seconds,
    )


def _serve(owner: Owner, head: Head, seen: Observed, settings: Settings) -> Plan:
    spec = owner.spec
    placement = place(spec, owner.uid, situation(head, seen, settings))
    report = status(head, spec, seen, placement)
    shared = tuple(sorted(name for name, why in seen.accepting.items() if not why))
    zones = {n: seen.nodes[n].zone for n in placement.nodes}
    redis = config.redis_url(settings.redis_url, owner.uid) if settings.redis_url else ""
    daemon_set = workers.daemon_set(owner, placement.nodes, settings.worker)
    homes = [owner.namespace, *shared]
    objects = [
        config.config_map(owner, zones, redis, report.get("version", "")),
        network.network_policy(owner, settings.namespace, shared),
        *network.services(owner),
        *(volume.volume(owner, home) for home in homes),
        *(volume.claim(owner, home) for home in homes),
        daemon_set,
    ]
    wanted = {ref_of(o) for o in objects}
    surplus = tuple(
        ref
        for ref, child in seen.children.items()
        if ref not in wanted
        and ref.kind in ("PersistentVolume", "PersistentVolumeClaim")
        and not child.deleting
    )
    idle = SHARING_SECONDS if spec.share_with.namespaces else IDLE_SECONDS
    times = (placement.again_at, seen.look_again_at, seen.now + idle)
    again_at = min(time for time in times if time is not None)
    return Plan(
        status=report,
        finalizer=True,
        objects=tuple(o for o in objects if ref_of(o) not in seen.taken),
        remove=surplus,
        rebind=_rebound(owner, seen, homes),
        replace=to_replace(
            seen.workers,
            workers.template_of(daemon_set),
            frozenset(seen.refused) | _undrained(seen, placement),
            frozenset(placement.nodes),
            seen.plugins,
            spec.worker.max_unavailable,
        ),
        asks=_asks(spec, head, seen, placement, settings),
        events=hindrance.events(
            head.name, spec, seen.users, seen.nodes, seen.workers, seen.failures
        ),
        again_at=again_at,
        placement=placement,
        owner=owner,
    )


def _rebound(owner: Owner, seen: Observed, homes: list[str]) -> tuple[tuple[Ref, str], ...]:
    """What Kubernetes does not mend by itself after a claim or volume was deleted by hand.

    A volume keeps the uid of a claim that is gone; a claim that lost its volume takes only one that
    names its uid.
    """
    found = []
    for home in homes:
        name = naming.volume_name(owner.uid, "" if home == owner.namespace else home)
        pv = seen.children.get(Ref("PersistentVolume", "", name))
        pvc = seen.children.get(Ref("PersistentVolumeClaim", home, owner.name))
        if pv is None or pv.deleting:
            continue
        if pvc is not None and pvc.phase == "Lost" and not pvc.deleting:
            found.append((pv.ref, pvc.uid))
        elif pv.phase in ("Released", "Failed"):
            found.append((pv.ref, ""))
    return tuple(found)


def _undrained(seen: Observed, placement: Placement) -> frozenset[str]:
    """Workers that handed over and are wanted again: they own chunks only after a new start."""
    return frozenset(
        pod.uid
        for pod in seen.workers
        if pod.node in placement.keeping - placement.drain
        and (report := seen.reports.get(pod.uid)) is not None
        and report.draining
    )


def _asks(
    spec: DatasetSpec, head: Head, seen: Observed, placement: Placement, settings: Settings
) -> tuple[Ask, ...]:
    asks = []
    wanted = spec.refresh.requested_at
    if wanted and wanted not in (seen.refreshed, head.before.get("refreshedAt")):
        # One is enough: it asks who lists for all.
        ready = [pod for pod in seen.workers if pod.ready and not pod.deleting]
        asks += [Ask(pod, "refresh", {"requested": wanted}) for pod in ready[:1]]
    for pod in seen.workers:
        report = seen.reports.get(pod.uid)
        if report is None or pod.deleting:
            continue
        if pod.node in placement.drain and pod.node not in seen.drains:
            asks.append(Ask(pod, "drain", {"seconds": settings.drain_seconds}))
        if report.suspended != spec.suspend:
            asks.append(Ask(pod, "suspend" if spec.suspend else "resume"))
    return tuple(asks)


def _delete(
    metadata: Mapping[str, Any], head: Head, spec: DatasetSpec | None, seen: Observed
) -> Plan:
    """Towards the end; a spec that nobody can read is deleted without waiting."""
    deleted_at = seconds_of(metadata["deletionTimestamp"]) or seen.now
    elsewhere = [
        ref
        for ref, child in seen.children.items()
        if (ref.kind == "PersistentVolume" or ref.namespace not in ("", metadata["namespace"]))
        and not child.deleting
    ]
    users = [pod for pod in seen.users if pod.node] if spec is not None else []
    rule = spec.deletion if spec is not None else deletion.FORCED
    now = deletion.step(rule, users, deleted_at, seen.now, elsewhere)
    why = now.waits or "its volumes are being removed"
    events: list[Event] = []
    if now.waits:
        text = f"{why}; deletion goes on when they end, at the latest after spec.deletion.timeout"
        events.append(
            hindrance.Event(
                "Dataset",
                "cacheop.io/v1alpha1",
                metadata["namespace"],
                metadata["name"],
                metadata["uid"],
                "WaitingForPods",
                text,
                warning=False,
            )
        )
    report = status(head, spec, seen, None, why) if spec is not None else {}
    if spec is None:
        report = {**status(head, None, seen, None, why), "phase": "Deleting"}
    return Plan(
        status=report,
        finalizer=not now.release,
        remove=tuple(sorted(elsewhere)) if now.remove else (),
        events=tuple(events),
        again_at=now.again_at,
    )
