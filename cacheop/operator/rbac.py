"""The rights that the operator needs, each with its reason. Pure; the chart renders them.

Beside the code that uses them, so that a right is taken out with its use. `ANYWHERE` belongs to
every namespace that is looked after (a ClusterRole, or a Role in each), `CLUSTER` to a ClusterRole
in any case, `SYSTEM` to the operator's own namespace.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cacheop.operator import naming

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Right:
    """A rule of RBAC and why it is needed."""

    group: str
    resources: tuple[str, ...]
    verbs: tuple[str, ...]
    why: str
    names: tuple[str, ...] = ()


_KEEP = ("get", "list", "watch", "create", "patch")
ANYWHERE = (
    Right("cacheop.io", ("datasets", "dataloads"), ("get", "list", "watch"), "they are its input"),
    Right("cacheop.io", ("datasets",), ("patch",), "sets and removes its finalizer"),
    Right(
        "cacheop.io", ("datasets/finalizers",), ("update",), "owner references that block deletion"
    ),
    Right(
        "cacheop.io", ("datasets/status", "dataloads/status"), ("patch",), "writes what is observed"
    ),
    Right("cacheop.io", ("dataloads",), ("delete",), "ttlSecondsAfterFinished"),
    Right("", ("configmaps",), _KEEP, "what workers are told"),
    Right("", ("services",), _KEEP, "how workers are reached"),
    Right("apps", ("daemonsets",), _KEEP, "the workers"),
    Right("networking.k8s.io", ("networkpolicies",), _KEEP, "who may reach workers"),
    Right(
        "", ("persistentvolumeclaims",), (*_KEEP, "delete"), "what pods mount; shared ones go again"
    ),
    # Server-side apply makes an object by its name, so that even making it can be limited to one.
    Right(
        "",
        ("secrets",),
        ("create", "patch", "delete"),
        "the namespace's one Secret of tokens; it is never read, and no other one is touched",
        names=(naming.SECRET,),
    ),
    Right(
        "",
        ("pods",),
        ("list", "watch", "delete"),
        "which nodes use a Dataset; outdated workers are replaced",
    ),
    Right("", ("events",), ("list", "create"), "why a DaemonSet makes no pod; tells users"),
)
CLUSTER = (
    Right("", ("nodes",), ("list", "watch"), "where workers may run, and which nodes leave"),
    Right("", ("namespaces",), ("get",), "whether a namespace accepts shared Datasets"),
    Right("", ("persistentvolumes",), (*_KEEP, "delete"), "the volume behind each claim"),
)
SYSTEM = (
    Right(
        "coordination.k8s.io",
        ("leases",),
        ("create",),
        "one active operator (this create cannot be limited to a name)",
    ),
    Right(
        "coordination.k8s.io",
        ("leases",),
        ("get", "update"),
        "the same",
        names=(naming.LEASE,),
    ),
    Right(
        "",
        ("configmaps",),
        ("get", "create", "patch", "delete"),
        "the list for node plugins",
        names=tuple(naming.datasets_name(shard) for shard in range(naming.SHARDS_MAX)),
    ),
    Right("", ("pods",), ("list", "watch"), "whether a node's plugin is ready"),
)


def rules(rights: Iterable[Right]) -> list[dict[str, Any]]:
    """As Role and ClusterRole have them."""
    return [
        {
            "apiGroups": [right.group],
            "resources": list(right.resources),
            "verbs": list(right.verbs),
        }
        | ({"resourceNames": list(right.names)} if right.names else {})
        for right in rights
    ]
