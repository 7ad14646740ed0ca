"""PersistentVolume and PersistentVolumeClaim, at home and in namespaces it is shared with. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cacheop.operator import naming
from cacheop.operator.manifests.owned import metadata, metadata_elsewhere

if TYPE_CHECKING:
    from cacheop.operator.manifests.owned import Document, Owner

CAPACITY = "1Mi"
"""A claim must ask for some. It takes nothing, so it is small: quotas of storage count it."""
_ACCESS = ["ReadOnlyMany"]


def volume(owner: Owner, namespace: str) -> Document:
    """The volume for the claim in `namespace`."""
    name = naming.volume_name(owner.uid, namespace if namespace != owner.namespace else "")
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": metadata_elsewhere(owner, name),
        "spec": {
            "capacity": {"storage": CAPACITY},
            "accessModes": _ACCESS,
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "",
            "volumeMode": "Filesystem",
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": namespace,
                "name": owner.name,
            },
            "csi": {
                "driver": naming.DRIVER,
                "volumeHandle": name,
                "readOnly": True,
                "volumeAttributes": {
                    "dataset": owner.name,
                    "namespace": owner.namespace,
                    "uid": owner.uid,
                },
            },
        },
    }


def claim(owner: Owner, namespace: str) -> Document:
    """The claim that pods of `namespace` mount."""
    home = namespace == owner.namespace
    place = (
        metadata(owner, owner.name) if home else metadata_elsewhere(owner, owner.name, namespace)
    )
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": place,
        "spec": {
            "accessModes": _ACCESS,
            "storageClassName": "",
            "volumeMode": "Filesystem",
            "volumeName": naming.volume_name(owner.uid, "" if home else namespace),
            "resources": {"requests": {"storage": CAPACITY}},
        },
    }
