"""How workers are reached: two Services, and who may. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cacheop.operator import naming
from cacheop.operator.manifests.owned import metadata

if TYPE_CHECKING:
    from cacheop.operator.manifests.owned import Document, Owner

PEERS, CLIENTS, HTTP = 7070, 7071, 9090
_NAMESPACE_NAME = "kubernetes.io/metadata.name"


def services(owner: Owner) -> tuple[Document, Document]:
    """The worker of the reader's own node; and all of them by name."""
    clients = _port("clients", CLIENTS)
    local = {
        "type": "ClusterIP",
        "internalTrafficPolicy": "Local",
        "selector": naming.selector(owner.name),
        "ports": [clients],
    }
    headless = {
        "type": "ClusterIP",
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": naming.selector(owner.name),
        "ports": [_port("peers", PEERS), clients],
    }
    return (
        _service(owner, naming.object_name(owner.name), local),
        _service(owner, naming.headless_name(owner.name), headless),
    )


def network_policy(owner: Owner, system: str, shared_with: tuple[str, ...]) -> Document:
    """Peers from each other; clients from namespaces that may read, and the operator; metrics."""
    readers = sorted({owner.namespace, system, *shared_with})
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(owner, naming.object_name(owner.name)),
        "spec": {
            "podSelector": {"matchLabels": naming.selector(owner.name)},
            "policyTypes": ["Ingress"],
            "ingress": [
                {
                    "from": [{"podSelector": {"matchLabels": naming.selector(owner.name)}}],
                    "ports": [{"port": PEERS, "protocol": "TCP"}],
                },
                {
                    "from": [
                        {
                            "namespaceSelector": {
                                "matchExpressions": [
                                    {"key": _NAMESPACE_NAME, "operator": "In", "values": readers}
                                ]
                            }
                        }
                    ],
                    "ports": [{"port": CLIENTS, "protocol": "TCP"}],
                },
                {"ports": [{"port": HTTP, "protocol": "TCP"}]},
            ],
        },
    }


def _service(owner: Owner, name: str, spec: dict[str, Any]) -> Document:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(owner, name),
        "spec": spec,
    }


def _port(name: str, number: int) -> Document:
    return {"name": name, "port": number, "targetPort": number, "protocol": "TCP"}
