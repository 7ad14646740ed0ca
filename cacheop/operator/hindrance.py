"""What keeps a worker from a node where a pod waits for it, told to that pod. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cacheop.operator.eligibility import refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cacheop.api.dataset import DatasetSpec
    from cacheop.operator.facts import Node, UserPod, WorkerPod

REASON = "CacheWorkerBlocked"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that a person must know, about an object."""

    kind: str
    api_version: str
    namespace: str
    name: str
    uid: str
    reason: str
    message: str
    warning: bool = True


def on_pod(pod: UserPod, reason: str, message: str) -> Event:
    """An event on a user's pod."""
    return Event("Pod", "v1", pod.namespace, pod.name, pod.uid, reason, message)


def why_not(
    spec: DatasetSpec,
    node: Node | None,
    workers: Iterable[WorkerPod],
    failures: str,
) -> str:
    """Why there is no ready worker on `node`; empty when there is, or when one just starts.

    `failures` is what the DaemonSet controller said when it could make no pod (quota, LimitRange).
    """
    if node is None:
        return ""
    refused = refusal(spec, node)
    if refused:
        return refused
    there = [pod for pod in workers if pod.node == node.name and not pod.deleting]
    if any(pod.ready for pod in there):
        return ""
    if not there:
        return failures
    return next((f"pod {pod.name}: {pod.problem}" for pod in there if pod.problem), "")


def events(
    dataset: str,
    spec: DatasetSpec,
    users: Iterable[UserPod],
    nodes: Mapping[str, Node],
    workers: tuple[WorkerPod, ...],
    failures: str,
) -> tuple[Event, ...]:
    """One for each pod that waits for a worker that cannot come."""
    reasons: dict[str, str] = {}
    found = []
    for pod in users:
        if not pod.node:
            continue
        if pod.node not in reasons:
            reasons[pod.node] = why_not(spec, nodes.get(pod.node), workers, failures)
        if reasons[pod.node]:
            text = f"Dataset {dataset} has no worker on node {pod.node}: {reasons[pod.node]}"
            found.append(on_pod(pod, REASON, text[:1024]))
    return tuple(found)
