"""What all objects of a Dataset have in common: name, labels, owner. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cacheop.api.names import API_VERSION
from cacheop.operator import naming

if TYPE_CHECKING:
    from cacheop.api.dataset import DatasetSpec

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Owner:
    """The Dataset whose objects these are."""

    namespace: str
    name: str
    uid: str
    spec: DatasetSpec


def metadata(owner: Owner, name: str) -> Document:
    """Of an object in the Dataset's namespace: gone with the Dataset."""
    return {
        "name": name,
        "namespace": owner.namespace,
        "labels": naming.labels(owner.name),
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": "Dataset",
                "name": owner.name,
                "uid": owner.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }


def metadata_elsewhere(owner: Owner, name: str, namespace: str = "") -> Document:
    """Of an object outside the Dataset's namespace: found by its labels, removed by us."""
    labels = naming.labels(owner.name)
    labels |= {naming.HOME_LABEL: owner.namespace, naming.UID_LABEL: owner.uid}
    place = {"namespace": namespace} if namespace else {}
    return {"name": name, **place, "labels": labels}
