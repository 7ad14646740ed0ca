"""The kinds of objects that the operator touches, and their places in the API. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True

    @property
    def group(self) -> str:
        """API group; "" is the core."""
        return self.api_version.rpartition("/")[0]

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """URL path of an object or, without a name, of the collection."""
        root = (
            f"/apis/{self.api_version}" if "/" in self.api_version else f"/api/{self.api_version}"
        )
        parts = [root]
        if self.namespaced and namespace:
            parts += ["namespaces", quote(namespace)]
        parts.append(self.plural)
        parts += [quote(part) for part in (name, subresource) if part]
        return "/".join(parts)


DATASET = Kind("cacheop.io/v1alpha1", "Dataset", "datasets")
DATALOAD = Kind("cacheop.io/v1alpha1", "DataLoad", "dataloads")
DAEMON_SET = Kind("apps/v1", "DaemonSet", "daemonsets")
SERVICE = Kind("v1", "Service", "services")
CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps")
SECRET = Kind("v1", "Secret", "secrets")
NETWORK_POLICY = Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
CLAIM = Kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims")
VOLUME = Kind("v1", "PersistentVolume", "persistentvolumes", namespaced=False)
POD = Kind("v1", "Pod", "pods")
NODE = Kind("v1", "Node", "nodes", namespaced=False)
NAMESPACE = Kind("v1", "Namespace", "namespaces", namespaced=False)
EVENT = Kind("v1", "Event", "events")
LEASE = Kind("coordination.k8s.io/v1", "Lease", "leases")

CHILDREN = (CONFIG_MAP, DAEMON_SET, SERVICE, NETWORK_POLICY, CLAIM, VOLUME)
"""What a Dataset is made of and what is watched, so that it comes back. Never Secrets."""
BY_KIND = {kind.kind: kind for kind in (*CHILDREN, SECRET, DATASET, DATALOAD)}


@dataclass(frozen=True, slots=True, order=True)
class Ref:
    """An object by its place."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        where = f"{self.namespace}/" if self.namespace else ""
        return f"{self.kind} {where}{self.name}"


def ref_of(document: Mapping[str, Any]) -> Ref:
    """The place of a document."""
    metadata = document["metadata"]
    return Ref(document["kind"], metadata.get("namespace", ""), metadata["name"])
