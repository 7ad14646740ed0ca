"""The rights that a user of a cluster needs, for what each is. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from cacheop.api.names import API_GROUP


class Purpose(Enum):
    """What somebody wants to do."""

    INSTALL = "install"
    USE = "use Datasets"
    ASK = "top and evict"

    @property
    def is_for_installing(self) -> bool:
        """Needed once."""
        return self is Purpose.INSTALL

    @property
    def is_needed(self) -> bool:
        """Without it nothing works for this user."""
        return self is not Purpose.ASK

    @property
    def costs(self) -> str:
        """Of lacking one of its rights."""
        return {
            Purpose.INSTALL: "helm install fails",
            Purpose.USE: "you cannot make or follow Datasets there",
            Purpose.ASK: "`cacheop top` and `cacheop evict` fail; all else works",
        }[self]


@dataclass(frozen=True, slots=True)
class Right:
    """One verb on one resource."""

    purpose: Purpose
    verb: str
    group: str
    resource: str
    namespace: str = ""
    subresource: str = ""
    name: str = ""

    def __str__(self) -> str:
        kind = self.resource + (f"/{self.subresource}" if self.subresource else "")
        group = f".{self.group}" if self.group else ""
        name = f" {self.name}" if self.name else ""
        where = f" in {self.namespace}" if self.namespace else ""
        return f"{self.verb} {kind}{group}{name}{where}"

    def review(self) -> dict[str, Any]:
        """The SelfSubjectAccessReview that asks for it."""
        attributes = {
            "verb": self.verb,
            "group": self.group,
            "resource": self.resource,
            "subresource": self.subresource,
            "namespace": self.namespace,
            "name": self.name,
        }
        return {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {k: v for k, v in attributes.items() if v}},
        }


def rights(namespace: str, system_namespace: str) -> tuple[Right, ...]:
    """Everything that is asked for."""
    cluster = (
        ("apiextensions.k8s.io", "customresourcedefinitions"),
        ("rbac.authorization.k8s.io", "clusterroles"),
        ("rbac.authorization.k8s.io", "clusterrolebindings"),
        ("storage.k8s.io", "csidrivers"),
        ("scheduling.k8s.io", "priorityclasses"),
    )
    system = (("apps", "daemonsets"), ("apps", "deployments"), ("", "secrets"))
    install, use, ask = Purpose.INSTALL, Purpose.USE, Purpose.ASK
    return (
        *(Right(install, "create", group, resource) for group, resource in cluster),
        *(Right(install, "create", g, resource, system_namespace) for g, resource in system),
        *(Right(use, verb, API_GROUP, "datasets", namespace) for verb in ("get", "list", "create")),
        Right(use, "patch", API_GROUP, "datasets", namespace),
        *(Right(use, verb, API_GROUP, "dataloads", namespace) for verb in ("get", "create")),
        Right(ask, "list", "", "pods", namespace),
        Right(ask, "create", "", "pods", namespace, subresource="portforward"),
        Right(ask, "get", "", "secrets", namespace, name="cacheop"),
    )
