"""What the objects of a Dataset are called, and the labels by which they are found. Pure."""

from __future__ import annotations

from cacheop.api.names import API_GROUP

DRIVER = API_GROUP
"""The CSI driver."""
FIELD_MANAGER = "cacheop"
FINALIZER = f"{API_GROUP}/finalizer"
ACCEPT_FROM = f"{API_GROUP}/accept-from"
"""Annotation of a namespace: whose Datasets may be shared into it, commas between them."""
DATASET_LABEL = f"{API_GROUP}/dataset"
HOME_LABEL = f"{API_GROUP}/home"
"""On what lies outside the Dataset's namespace: which one that is."""
UID_LABEL = f"{API_GROUP}/dataset-uid"
TEMPLATE_ANNOTATION = f"{API_GROUP}/template-hash"
SECRET = "cacheop"  # noqa: S105 - a name
DATASETS = "cacheop-datasets"
SHARDS_MAX = 16
"""As many ConfigMaps of the list are mounted into node plugins: about 64,000 Datasets."""
LEASE = "cacheop-operator"

NAME_LABEL = "app.kubernetes.io/name"
COMPONENT_LABEL = "app.kubernetes.io/component"
MANAGED_LABEL = "app.kubernetes.io/managed-by"
ZONE_LABEL = "topology.kubernetes.io/zone"
WORKER, NODE_PLUGIN = "worker", "node"
OURS = f"{MANAGED_LABEL}={FIELD_MANAGER},{DATASET_LABEL}"
"""Selects every object of every Dataset."""


def labels(dataset: str) -> dict[str, str]:
    """The labels of all objects of a Dataset."""
    return {
        NAME_LABEL: FIELD_MANAGER,
        COMPONENT_LABEL: WORKER,
        MANAGED_LABEL: FIELD_MANAGER,
        DATASET_LABEL: dataset,
    }


def selector(dataset: str) -> dict[str, str]:
    """The labels that only the workers of a Dataset have, in its namespace."""
    return {NAME_LABEL: FIELD_MANAGER, COMPONENT_LABEL: WORKER, DATASET_LABEL: dataset}


def selector_text(dataset: str) -> str:
    """The same as kubectl and autoscalers write it."""
    return ",".join(f"{key}={value}" for key, value in selector(dataset).items())


def object_name(dataset: str) -> str:
    """ConfigMap, DaemonSet, Service and NetworkPolicy."""
    return f"cacheop-{dataset}"


def datasets_name(shard: int) -> str:
    """A ConfigMap of the list of Datasets for node plugins."""
    return f"{DATASETS}-{shard}" if shard else DATASETS


def headless_name(dataset: str) -> str:
    """The Service that names every worker."""
    return f"cacheop-{dataset}-workers"


def volume_name(uid: str, shared_with: str = "") -> str:
    """The PersistentVolume in the Dataset's namespace, or in another one."""
    return f"cacheop-{uid}-{shared_with}" if shared_with else f"cacheop-{uid}"


def redis_user(uid: str) -> str:
    """The Dataset's user in Redis."""
    return f"cacheop-{uid}"


def redis_prefix(uid: str) -> str:
    """What each of its keys begins with."""
    return f"cacheop:{uid}:"
