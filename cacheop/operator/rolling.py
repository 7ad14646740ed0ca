"""Which worker pods are replaced now, so that a new template or spec comes to all. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cacheop.operator.facts import WorkerPod


def to_replace(
    pods: Iterable[WorkerPod],
    template: str,
    stale: frozenset[str],
    wanted: frozenset[str],
    plugins: frozenset[str],
    max_unavailable: int,
) -> tuple[WorkerPod, ...]:
    """Pods to delete now; the DaemonSet makes new ones.

    `stale` are uids of pods that must start again for another reason than their template. At most
    `max_unavailable` of the nodes that are `wanted` are without a ready worker on our account. A
    pod that is not ready anyway goes at once: whatever is wrong with it may be what was mended. A
    ready one goes only where the node's plugin is ready, which keeps the mounts meanwhile.
    """
    alive = [pod for pod in pods if not pod.deleting and pod.node in wanted]
    outdated = [pod for pod in alive if pod.template != template or pod.uid in stale]
    broken = [pod for pod in outdated if not pod.ready]
    # Also a node on which none finds room: were a new template the reason, all would go.
    room = max_unavailable - len(wanted - {pod.node for pod in alive if pod.ready})
    candidates = sorted(
        (pod for pod in outdated if pod.ready and pod.node in plugins), key=lambda pod: pod.node
    )
    return (*broken, *candidates[: max(0, room)])
