"""Short ways to say what a cluster looks like, for tests of the operator's decisions."""

from __future__ import annotations

from typing import Any

from cacheop.api.dataset import DatasetSpec, parse_dataset
from cacheop.operator.facts import Node, Taint, UserPod, WorkerPod
from cacheop.operator.observed import Observed, rfc3339
from cacheop.operator.reports import Report, Said
from cacheop.operator.settings import Settings
from cacheop.operator.tokens import MasterKey

UID = "6f1f8a5e-7b4a-4a68-9d38-2f1f3a6f0c11"
NOW = 1_800_000_000.0
VERSION = "0123456789abcdef"
SETTINGS = Settings(master=MasterKey(b"k" * 32), identity="me", redis_url="redis://redis:6379/0")


def document(name: str = "mine", namespace: str = "team", **spec: Any) -> dict[str, Any]:
    """A Dataset as the API server gives it."""
    metadata = {
        "name": name,
        "namespace": namespace,
        "uid": UID,
        "generation": 3,
        "resourceVersion": "7",
        "creationTimestamp": rfc3339(NOW - 60),
    }
    mounts = [{"mountPoint": "s3://bucket/data/", "path": "/"}]
    return {
        "apiVersion": "cacheop.io/v1alpha1",
        "kind": "Dataset",
        "metadata": metadata,
        "spec": {"mounts": mounts, **spec},
    }


def spec_of(**fields: Any) -> DatasetSpec:
    """A spec with these fields."""
    return parse_dataset(document(**fields)).spec


def node(name: str, *, zone: str = "", leaving: str = "", taints: tuple[Taint, ...] = ()) -> Node:
    """A ready node."""
    labels = {"kubernetes.io/hostname": name}
    if zone:
        labels["topology.kubernetes.io/zone"] = zone
    return Node(name, labels, taints, leaving)


def nodes(*names: str) -> dict[str, Node]:
    """Ready nodes without anything particular."""
    return {name: node(name) for name in names}


def worker(on: str, **fields: Any) -> WorkerPod:
    """A worker pod of team/mine; ready unless said otherwise."""
    known = {"ip": "10.0.0.1", "ready": True, "running": True, "template": "t"}
    return WorkerPod("team", "mine", f"w-{on}", f"uid-{on}", on, **{**known, **fields})


def user(name: str, on: str = "", namespace: str = "team", claim: str = "mine") -> UserPod:
    """A pod with the claim of team/mine."""
    return UserPod(namespace, name, f"uid-{name}", on, claims=(claim,))


def report(on: str, **fields: Any) -> Report:
    """A worker that has half of 1000 bytes."""
    known: dict[str, Any] = {
        "phase": "Ready",
        "version": VERSION,
        "file_count": 10,
        "bytes_total": 1000,
        "cached_bytes": 500,
        "conditions": (
            Said("Ready", "True", "Ready", ""),
            Said("Indexed", "True", "Indexed", ""),
            Said("OriginReachable", "True", "Answers", ""),
            Said("Healthy", "True", "Stores", ""),
        ),
    }
    return Report(on, **{**known, **fields})


def observed(**fields: Any) -> Observed:
    """What is seen now; one node and nothing else unless said otherwise."""
    return Observed(**{"now": NOW, "nodes": nodes("a"), **fields})
