"""Whether workers of a Dataset may run on a node: affinity and tolerations, in words. Pure.

As the scheduler decides it, so that what is refused can be told before a pod waits for ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cacheop.api.dataset import DatasetSpec
    from cacheop.api.scheduling import NodeSelectorRequirement, NodeSelectorTerm, Toleration
    from cacheop.operator.facts import Node, Taint


def refusal(spec: DatasetSpec, node: Node) -> str:
    """Why no worker may run on `node`; empty when one may."""
    required = spec.node_affinity.required
    if required is not None and not any(_holds(t, node) for t in required.node_selector_terms):
        return f"spec.nodeAffinity does not match node {node.name}"
    if spec.tolerations is None:
        return ""
    for taint in node.taints:
        if taint.effect == "PreferNoSchedule" or taint.key.startswith("node.kubernetes.io/"):
            continue  # the latter are tolerated by every DaemonSet, or soon gone
        if not any(_tolerates(t, taint) for t in spec.tolerations):
            shown = f"{taint.key}={taint.value}" if taint.value else taint.key
            return (
                f"spec.tolerations does not tolerate the taint {shown}:{taint.effect} "
                f"of node {node.name}"
            )
    return ""


def _tolerates(toleration: Toleration, taint: Taint) -> bool:
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if not toleration.key:
        return toleration.operator == "Exists"
    if toleration.key != taint.key:
        return False
    return toleration.operator == "Exists" or (toleration.value or "") == taint.value


def _holds(term: NodeSelectorTerm, node: Node) -> bool:
    if not term.match_expressions and not term.match_fields:
        return False  # an empty term matches nothing
    fields = {"metadata.name": node.name}
    return all(_matches(r, node.labels) for r in term.match_expressions) and all(
        _matches(r, fields) for r in term.match_fields
    )


def _matches(requirement: NodeSelectorRequirement, labels: Mapping[str, str]) -> bool:
    value, values = labels.get(requirement.key), requirement.values
    match requirement.operator:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
    try:
        number, bound = int(value or ""), int(values[0])
    except (ValueError, IndexError):
        return False
    return number > bound if requirement.operator == "Gt" else number < bound
