"""What is observed of the cluster, reduced to what is needed to decide. Pure."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cacheop.operator import naming

if TYPE_CHECKING:
    from collections.abc import Mapping

LEAVING_TAINTS = {
    "ToBeDeletedByClusterAutoscaler": "the cluster autoscaler removes it",
    "karpenter.sh/disrupted": "Karpenter removes it",
    "karpenter.sh/disruption": "Karpenter removes it",
    "node.cloudprovider.kubernetes.io/shutdown": "it shuts down",
    "node.kubernetes.io/out-of-service": "it is out of service",
    "cloud.google.com/impending-node-termination": "its spot instance ends",
    "aws-node-termination-handler/spot-itn": "its spot instance ends",
    "aws-node-termination-handler/rebalance-recommendation": "its spot instance may end",
    "aws-node-termination-handler/asg-lifecycle-termination": "its group removes it",
    "aws-node-termination-handler/scheduled-maintenance": "its maintenance begins",
    "kubernetes.azure.com/scalesetpriority-evicted": "its spot instance ends",
}


@dataclass(frozen=True, slots=True)
class Taint:
    """A taint of a node."""

    key: str
    value: str = ""
    effect: str = "NoSchedule"


@dataclass(frozen=True, slots=True)
class Node:
    """A node."""

    name: str
    labels: Mapping[str, str]
    taints: tuple[Taint, ...] = ()
    leaving: str = ""
    """Why it will soon be no more; empty when it stays."""
    ready: bool = True

    @property
    def zone(self) -> str:
        """Its failure domain."""
        return self.labels.get(naming.ZONE_LABEL, "")


def read_node(document: Mapping[str, Any]) -> Node:
    """A node of the API."""
    metadata, spec = document["metadata"], document.get("spec") or {}
    taints = tuple(
        Taint(t["key"], t.get("value") or "", t.get("effect") or "")
        for t in spec.get("taints") or ()
    )
    leaving = "it is cordoned" if spec.get("unschedulable") else ""
    for taint in taints:
        leaving = LEAVING_TAINTS.get(taint.key, leaving)
    if metadata.get("deletionTimestamp"):
        leaving = "it is being deleted"
    conditions = (document.get("status") or {}).get("conditions") or ()
    ready = all(c.get("status") == "True" for c in conditions if c.get("type") == "Ready")
    labels = metadata.get("labels") or {}
    return Node(metadata["name"], labels, taints, leaving, ready)


@dataclass(frozen=True, slots=True)
class UserPod:
    """A pod that has a volume which may be a Dataset."""

    namespace: str
    name: str
    uid: str
    node: str
    """Empty until it is scheduled."""
    claims: tuple[str, ...] = ()
    inline: tuple[str, ...] = ()
    """Datasets by inline volumes."""

    def uses(self, home: str, dataset: str, shared_with: frozenset[str]) -> bool:
        """Whether a Dataset is one of its volumes, by name."""
        if self.namespace == home:
            return dataset in self.claims or dataset in self.inline
        return self.namespace in shared_with and dataset in self.claims


@dataclass(frozen=True, slots=True)
class WorkerPod:
    """A pod that serves a Dataset."""

    namespace: str
    dataset: str
    name: str
    uid: str
    node: str
    ip: str = ""
    ready: bool = False
    running: bool = False
    template: str = ""
    """Hash of the template it was made of."""
    problem: str = ""
    """Why it does not run."""
    deleting: bool = False


@dataclass(frozen=True, slots=True)
class PluginPod:
    """A pod of the node plugin."""

    name: str
    node: str
    ready: bool


def read_pod(document: Mapping[str, Any], system: str) -> UserPod | WorkerPod | PluginPod | None:
    """What matters of a pod; None for one that has nothing to do with us or has ended."""
    metadata, spec = document["metadata"], document.get("spec") or {}
    status = document.get("status") or {}
    labels = metadata.get("labels") or {}
    if status.get("phase") in ("Succeeded", "Failed"):
        return None
    if labels.get(naming.NAME_LABEL) == naming.FIELD_MANAGER:
        component = labels.get(naming.COMPONENT_LABEL)
        if component == naming.WORKER and naming.DATASET_LABEL in labels:
            return _worker(metadata, spec, status)
        if component == naming.NODE_PLUGIN and metadata["namespace"] == system:
            return PluginPod(metadata["name"], spec.get("nodeName") or "", _is_ready(status))
    return _user(metadata, spec)


def _user(metadata: Mapping[str, Any], spec: Mapping[str, Any]) -> UserPod | None:
    claims, inline = [], []
    for volume in spec.get("volumes") or ():
        claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
        csi = volume.get("csi") or {}
        dataset = (csi.get("volumeAttributes") or {}).get("dataset")
        if claim:
            claims.append(claim)
        elif csi.get("driver") == naming.DRIVER and dataset:
            inline.append(dataset)
    if not claims and not inline:
        return None
    return UserPod(
        metadata["namespace"],
        metadata["name"],
        metadata["uid"],
        spec.get("nodeName") or "",
        tuple(claims),
        tuple(inline),
    )


def _worker(
    metadata: Mapping[str, Any], spec: Mapping[str, Any], status: Mapping[str, Any]
) -> WorkerPod:
    annotations = metadata.get("annotations") or {}
    return WorkerPod(
        namespace=metadata["namespace"],
        dataset=metadata["labels"][naming.DATASET_LABEL],
        name=metadata["name"],
        uid=metadata["uid"],
        node=spec.get("nodeName") or _target_node(spec),
        ip=status.get("podIP") or "",
        ready=_is_ready(status),
        running=status.get("phase") == "Running",
        template=annotations.get(naming.TEMPLATE_ANNOTATION, ""),
        problem=_problem(status),
        deleting=bool(metadata.get("deletionTimestamp")),
    )


def _target_node(spec: Mapping[str, Any]) -> str:
    """For which node the DaemonSet controller made a pod that is not scheduled yet."""
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    for term in required.get("nodeSelectorTerms") or ():
        for field in term.get("matchFields") or ():
            if field.get("key") == "metadata.name" and field.get("values"):
                return str(field["values"][0])
    return ""


def _is_ready(status: Mapping[str, Any]) -> bool:
    return any(
        c.get("type") == "Ready" and c.get("status") == "True"
        for c in status.get("conditions") or ()
    )


def _problem(status: Mapping[str, Any]) -> str:
    """Why a pod does not run, in Kubernetes' words; empty when it does or has just begun."""
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return str(condition.get("message") or condition.get("reason") or "not scheduled")
    for container in (
        *(status.get("initContainerStatuses") or ()),
        *(status.get("containerStatuses") or ()),
    ):
        state = container.get("state") or {}
        waiting = state.get("waiting") or {}
        ended = (
            state.get("terminated") or (container.get("lastState") or {}).get("terminated") or {}
        )
        if waiting.get("reason") in (None, "ContainerCreating", "PodInitializing"):
            continue
        said = waiting.get("message") or ended.get("message") or ""
        return f"{waiting['reason']}: {said}".rstrip(": ")
    return ""


def fingerprint(document: Mapping[str, Any]) -> str:
    """The same for two states of an object that nobody edited in between."""
    metadata = {
        key: value
        for key, value in document["metadata"].items()
        if key not in ("managedFields", "resourceVersion", "generation")
    }
    rest = {
        k: v for k, v in document.items() if k not in ("metadata", "status", "apiVersion", "kind")
    }
    text = json.dumps([metadata, rest], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
