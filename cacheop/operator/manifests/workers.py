"""The DaemonSet of a Dataset's workers. Pure.

It runs on the nodes that placement names. As the names are part of the template, the DaemonSet
replaces nothing by itself (OnDelete): a hash of the template without them says which pods are
outdated, and rolling.py says when they go.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from cacheop.api.parse import write
from cacheop.api.quantity import format_quantity, parse_quantity
from cacheop.operator import naming
from cacheop.operator.manifests.network import CLIENTS, HTTP, PEERS
from cacheop.operator.manifests.owned import metadata

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cacheop.operator.manifests.owned import Document, Owner
    from cacheop.operator.settings import WorkerDefaults

UID = 65532
RUN_DIR = "/run/cacheop"
STOP_SECONDS = 30


def daemon_set(owner: Owner, nodes: Iterable[str], defaults: WorkerDefaults) -> Document:
    """The DaemonSet on exactly these nodes."""
    labels = {**defaults.labels, **owner.spec.worker.pod_labels, **naming.labels(owner.name)}
    pod = pod_spec(owner, defaults)
    annotations = {**defaults.annotations, **owner.spec.worker.pod_annotations}
    digest = template_hash(labels, annotations, pod)
    pod["affinity"] = {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": node_terms(nodes)
            }
        }
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": metadata(owner, naming.object_name(owner.name)),
        "spec": {
            "selector": {"matchLabels": naming.selector(owner.name)},
            "updateStrategy": {"type": "OnDelete"},
            "revisionHistoryLimit": 1,
            "template": {
                "metadata": {
                    "labels": labels,
                    "annotations": {**annotations, naming.TEMPLATE_ANNOTATION: digest},
                },
                "spec": pod,
            },
        },
    }


def template_hash(labels: Any, annotations: Any, pod: Document) -> str:
    """Changes when pods must be made anew."""
    text = json.dumps([labels, annotations, pod], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def template_of(daemon_set_document: Document) -> str:
    """The hash in a DaemonSet that was made here."""
    annotations = daemon_set_document["spec"]["template"]["metadata"]["annotations"]
    return str(annotations[naming.TEMPLATE_ANNOTATION])


def node_terms(nodes: Iterable[str]) -> list[Document]:
    """One term a node: matchFields takes one value only. None at all is written so."""
    terms: list[Document] = [
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]}
        for name in sorted(nodes)
    ]
    nowhere = {"key": "cacheop.io/no-node", "operator": "In", "values": ["none"]}
    return terms or [{"matchExpressions": [nowhere]}]


def named_nodes(daemon_set_document: Document) -> frozenset[str]:
    """The nodes that a DaemonSet names: the inverse of node_terms."""
    affinity = (
        daemon_set_document.get("spec", {})
        .get("template", {})
        .get("spec", {})
        .get("affinity", {})
        .get("nodeAffinity", {})
        .get("requiredDuringSchedulingIgnoredDuringExecution", {})
    )
    return frozenset(
        value
        for term in affinity.get("nodeSelectorTerms") or ()
        for field in term.get("matchFields") or ()
        if field.get("key") == "metadata.name"
        for value in field.get("values") or ()
    )


def pod_spec(owner: Owner, defaults: WorkerDefaults) -> Document:
    """The pod without its nodes: PodSecurity `restricted`, no rights in the API."""
    spec, worker = owner.spec, owner.spec.worker
    pull = list(defaults.pull_secrets) + [ref.name for ref in worker.image_pull_secrets]
    pod: Document = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": STOP_SECONDS,
        "tolerations": [{"operator": "Exists"}]
        if spec.tolerations is None
        else [write(toleration, full=True) for toleration in spec.tolerations],
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": UID,
            "runAsGroup": UID,
            "fsGroup": UID,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(owner, defaults)],
        "volumes": _volumes(owner),
    }
    if pull:
        pod["imagePullSecrets"] = [{"name": name} for name in dict.fromkeys(pull)]
    if worker.service_account_name:
        pod["serviceAccountName"] = worker.service_account_name
    priority = worker.priority_class_name or defaults.priority_class
    if priority:
        pod["priorityClassName"] = priority
    return pod


def _container(owner: Owner, defaults: WorkerDefaults) -> Document:
    ports = (("peers", PEERS), ("clients", CLIENTS), ("http", HTTP))
    mounts = [
        ("cache", "/cache", False),
        ("config", "/config", True),
        ("token", "/token", True),
        ("run", RUN_DIR, False),
    ]
    if _secret_keys(owner):
        mounts.append(("secrets", "/secrets", True))
    mounts += [(f"pvc-{k}", f"/pvc/{name}", True) for k, name in enumerate(_claims(owner))]
    return {
        "name": "worker",
        "image": defaults.image,
        "imagePullPolicy": defaults.image_pull_policy,
        "command": ["python", "-m", "cache_worker", "pod"],
        "env": [
            _field("CACHEOP_NODE", "spec.nodeName"),
            _field("CACHEOP_POD_IP", "status.podIP"),
            {"name": "TMPDIR", "value": RUN_DIR},
        ],
        "ports": [
            {"name": name, "containerPort": number, "protocol": "TCP"} for name, number in ports
        ],
        "readinessProbe": {
            "httpGet": {"path": "/healthz", "port": HTTP, "scheme": "HTTP"},
            "periodSeconds": 2,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
        "resources": resources(owner, defaults),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": name, "mountPath": path, **({"readOnly": True} if read_only else {})}
            for name, path, read_only in mounts
        ],
    }


def resources(owner: Owner, defaults: WorkerDefaults) -> Document:
    """Little CPU; memory requested is the limit; what a Memory tier holds comes on top."""
    given = owner.spec.worker.resources
    memory = given.limits.get("memory") or given.requests.get("memory") or defaults.memory
    tier = sum(tier.quota_bytes or 0 for tier in owner.spec.cache.tiers if tier.medium == "Memory")
    if tier:
        memory = format_quantity(parse_quantity(memory) + tier)
    return {
        "requests": {"cpu": defaults.cpu_request, **given.requests, "memory": memory},
        "limits": {**given.limits, "memory": memory},
    }


def _field(name: str, path: str) -> Document:
    return {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}


def _volumes(owner: Owner) -> list[Document]:
    keys = [{"key": f"{owner.uid}.{name}", "path": name} for name in ("control", "redis")]
    volumes: list[Document] = [
        {
            "name": "cache",
            "csi": {
                "driver": naming.DRIVER,
                "volumeAttributes": {"cache": owner.name, "uid": owner.uid},
            },
        },
        {"name": "config", "configMap": {"name": naming.object_name(owner.name)}},
        {
            "name": "token",
            "projected": {"sources": [{"secret": {"name": naming.SECRET, "items": keys}}]},
        },
        {"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}},
    ]
    secrets = _secret_keys(owner)
    if secrets:
        sources = [
            {
                "secret": {
                    "name": name,
                    "optional": True,
                    "items": [{"key": key, "path": f"{name}/{key}"} for key in keys],
                }
            }
            for name, keys in secrets.items()
        ]
        volumes.append({"name": "secrets", "projected": {"sources": sources}})
    volumes += [
        {"name": f"pvc-{k}", "persistentVolumeClaim": {"claimName": name, "readOnly": True}}
        for k, name in enumerate(_claims(owner))
    ]
    return volumes


def _secret_keys(owner: Owner) -> dict[str, list[str]]:
    """Secret -> the keys of it that some mount names."""
    found: dict[str, set[str]] = {}
    for mount in owner.spec.mounts:
        for option in mount.encrypt_options:
            found.setdefault(option.secret_name, set()).add(option.secret_key)
    return {name: sorted(keys) for name, keys in sorted(found.items())}


def _claims(owner: Owner) -> list[str]:
    """Claims of pvc://claim/path mounts."""
    found = {
        mount.mount_point.removeprefix("pvc://").partition("/")[0]
        for mount in owner.spec.mounts
        if mount.mount_point.startswith("pvc://")
    }
    return sorted(found)
