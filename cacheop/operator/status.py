"""`status` of a Dataset from what is observed. Pure; what nobody can tell now stays as it was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cacheop.api.conditions import Condition
from cacheop.api.dataset_status import CacheStates, DatasetStatus, NodeState
from cacheop.api.parse import write
from cacheop.operator import naming, reports
from cacheop.operator.conditions import condition, stamped
from cacheop.operator.observed import rfc3339

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cacheop.api.dataset import DatasetSpec
    from cacheop.operator.facts import WorkerPod
    from cacheop.operator.observed import Observed
    from cacheop.operator.placement import Placement
    from cacheop.operator.reports import Report

Verdict = tuple[str, dict[str, Any]]
"""phase and the condition Ready."""
NODES_MAX = 5000


@dataclass(frozen=True, slots=True)
class Head:
    """The document whose status this is."""

    name: str
    generation: int
    before: Mapping[str, Any]
    """The status it has."""


def status(
    head: Head, spec: DatasetSpec | None, seen: Observed, placement: Placement | None, why: str = ""
) -> dict[str, Any]:
    """The status to write. `why` is the word for deletion or what is wrong with the spec."""
    told = [seen.reports[pod.uid] for pod in seen.workers if pod.uid in seen.reports]
    before = head.before
    known_version = str(before.get("version") or "")
    version = reports.version_of(told, spec.version if spec else "", known_version)
    of_version = [report for report in told if report.version == version]
    if spec is None:
        phase, ready = "Failed", condition("Ready", False, "InvalidSpec", why)
        others: list[dict[str, Any]] = []
    elif why:
        phase, ready = "Deleting", condition("Ready", False, "Deleting", why)
        others = []
    else:
        assert placement is not None
        phase, ready = _verdict(spec, seen, placement, told, version)
        others = list(_aspects(spec, seen, placement, told))
    stamps = stamped(
        [ready, *others], before.get("conditions") or (), head.generation, rfc3339(seen.now)
    )
    size = next((r.bytes_total for r in of_version), None)
    files = next((r.file_count for r in of_version), None)
    if size is None and version == known_version:
        size, files = before.get("ufsTotalBytes"), before.get("fileNum")
    mode = reports.mode_of(told)
    found = DatasetStatus(
        phase=phase,  # type: ignore[arg-type]
        version=version,
        mode=mode,
        file_num=files,
        ufs_total=human(size) if size is not None else "",
        ufs_total_bytes=size,
        replicas=len([pod for pod in seen.workers if not pod.deleting]),
        ready_replicas=len(_ready(seen)),
        selector=naming.selector_text(head.name),
        cache_states=_cache_states(of_version, size, version, before),
        conditions=tuple(Condition(**_attributes(c)) for c in stamps),
        nodes=_nodes(of_version, seen, before),
        refreshed_at=seen.refreshed or before.get("refreshedAt"),
        observed_generation=head.generation,
    )
    return write(found, full=True)


def _attributes(item: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": item["type"],
        "status": item["status"],
        "reason": item["reason"],
        "message": item["message"],
        "last_transition_time": item["lastTransitionTime"],
        "observed_generation": item["observedGeneration"],
    }


def human(size_bytes: int) -> str:
    """`1536` -> `1.5Ki`."""
    value, units = float(size_bytes), ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
    unit = 0
    while value >= 1024 and unit < len(units) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.0f}" if unit == 0 else f"{value:.1f}{units[unit]}"


def _ready(seen: Observed) -> list[WorkerPod]:
    return [pod for pod in seen.workers if pod.ready and not pod.deleting]


def _verdict(
    spec: DatasetSpec, seen: Observed, placement: Placement, told: list[Report], version: str
) -> Verdict:
    """Phase and Ready, the worst that a person must act on first."""
    taken = next((f"{ref} is {whose}" for ref, whose in seen.taken.items()), "")
    if taken:
        text = f"{taken}; rename the Dataset or remove that object"
        return "Failed", condition("Ready", False, "NameTaken", text)
    ready = len(_ready(seen))
    if ready and version:
        wanted = len(placement.keeping)
        text = f"{ready} of {wanted} workers" if ready < wanted else _count(ready, "worker")
        return "Ready", condition("Ready", True, "Ready", text)
    indexing = next((r for r in told if r.phase == "Indexing"), None)
    if indexing is not None:
        text = f"listing the origin: {indexing.indexing_keys or 0} keys so far"
        return "Indexing", condition("Ready", False, "Indexing", text)
    failed = next((r for r in told if r.phase == "Failed"), None)
    if failed is not None:
        said = reports.worst([failed], "Indexed")
        reason = said.reason if said is not None else "Failed"
        return "Failed", condition("Ready", False, reason, failed.error or "indexing failed")
    if ready:
        text = "a worker is ready and has not said yet which version it has"
        return "Indexing", condition("Ready", False, "Indexing", text)
    if placement.keeping:
        problem = _problem(seen)
        reason = "WorkerBlocked" if problem else "Starting"
        return "Pending", condition("Ready", False, reason, problem or "workers are starting")
    if spec.replicas or spec.all_nodes:
        text = "no node fits spec.nodeAffinity and spec.tolerations, or all are about to leave"
        return "Pending", condition("Ready", False, "NoNode", text)
    if version:
        text = "no worker runs; the first pod that uses it gets one"
        return "Ready", condition("Ready", True, "Idle", text)
    text = "replicas is 0: the origin is listed when a pod uses it first"
    return "Pending", condition("Ready", False, "NeverUsed", text)


def _problem(seen: Observed) -> str:
    for pod in seen.workers:
        if pod.problem and not pod.deleting:
            return f"pod {pod.name} on node {pod.node}: {pod.problem}"
    if seen.failures:
        return seen.failures
    return next(iter(seen.errors), "")


def _aspects(
    spec: DatasetSpec, seen: Observed, placement: Placement, told: list[Report]
) -> list[dict[str, Any]]:
    """The conditions besides Ready."""
    found = []
    for kind in ("Indexed", "OriginReachable", "Healthy"):
        said = reports.worst(told, kind)
        if said is not None:
            holds = {"True": True, "False": False}.get(said.status)
            found.append(condition(kind, holds, said.reason, said.message))
        else:
            found.append(condition(kind, None, "NoWorker", "no worker tells"))
    ready, wanted = len(_ready(seen)), len(placement.keeping)
    if ready >= wanted:
        found.append(condition("WorkersReady", True, "Ready", f"{ready} of {wanted}"))
    else:
        text = f"{ready} of {wanted}. {_problem(seen)}".rstrip(". ")
        found.append(condition("WorkersReady", False, "NotReady", text))
    if seen.refused:
        text = next(iter(seen.refused.values()))
        found.append(
            condition("Configured", False, "Restarting", f"workers start again, because {text}")
        )
    else:
        found.append(condition("Configured", True, "Configured"))
    if seen.errors:
        found.append(condition("Applied", False, "Refused", seen.errors[0]))
    else:
        found.append(condition("Applied", True, "Applied"))
    if spec.share_with.namespaces:
        found.append(_shared(seen))
    if spec.preload:
        found.append(_preloaded(seen))
    return found


def _shared(seen: Observed) -> dict[str, Any]:
    reasons = [f"{name}: {why}" for name, why in sorted(seen.accepting.items()) if why]
    if reasons:
        return condition("Shared", False, "NotAccepted", "; ".join(reasons))
    return condition("Shared", True, "Shared", ", ".join(sorted(seen.accepting)))


def _preloaded(seen: Observed) -> dict[str, Any]:
    load = seen.preload
    if load is None:
        return condition("Preloaded", False, "Waiting", "begins when a worker is ready")
    if load.failed:
        return condition("Preloaded", False, "Failed", load.failed)
    if load.finished:
        return condition("Preloaded", True, "Complete", f"version {load.version}")
    return condition("Preloaded", False, "Loading", f"{load.percentage} %")


def _cache_states(
    told: list[Report], size: int | None, version: str, before: Mapping[str, Any]
) -> CacheStates:
    if not version:
        return CacheStates()
    if not told:
        old = before.get("cacheStates") or {}
        if version != before.get("version"):
            return CacheStates()
        return CacheStates(
            cached=old.get("cached") or "",
            cached_bytes=old.get("cachedBytes") or 0,
            cached_percentage=old.get("cachedPercentage") or "",
            hit_ratio=old.get("hitRatio") or "",
            origin_bytes=old.get("originBytes") or 0,
            origin_ratio=old.get("originRatio") or "",
        )
    total = size or 0
    unique = min(reports.unique_cached_bytes(told), total)
    origin = sum(report.origin_bytes for report in told)
    ratio = reports.hit_ratio(told)
    return CacheStates(
        cached=human(unique),
        cached_bytes=unique,
        # Rounded down: 100.0% means all of it.
        cached_percentage=f"{int(1000 * unique / total) / 10:.1f}%" if total else "100.0%",
        hit_ratio="" if ratio is None else f"{100 * ratio:.1f}%",
        origin_bytes=origin,
        origin_ratio=f"{origin / total:.2f}" if total else "",
    )


def _nodes(told: list[Report], seen: Observed, before: Mapping[str, Any]) -> tuple[NodeState, ...]:
    """Who holds chunks; a node whose worker is away still has what it had."""
    found: dict[str, NodeState] = {}
    for old in before.get("nodes") or ():
        if old.get("name") in seen.nodes:
            found[old["name"]] = NodeState(
                old["name"], old.get("cachedBytes") or 0, bool(old.get("complete"))
            )
    for report in told:
        whole = report.cached_bytes >= report.bytes_total
        found[report.node] = NodeState(report.node, report.cached_bytes, whole)
    held = [state for state in found.values() if state.cached_bytes]
    return tuple(sorted(held, key=lambda state: state.name)[:NODES_MAX])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
