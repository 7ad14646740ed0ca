"""Datasets and the pods that use them, as users write them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.cluster.kubectl import is_ready
from tests.cluster.pods import pod

if TYPE_CHECKING:
    from tests.cluster.kubectl import Kubectl, Object
    from tests.cluster.origin import Origin

READY_SECONDS = 30.0
WHERE = "/data"

READ = """
import hashlib, json, os, sys
top, found = sys.argv[1], {}
for parent, _, names in os.walk(top, onerror=lambda error: sys.exit(str(error))):
    for name in names:
        path = os.path.join(parent, name)
        with open(path, "rb") as file:
            found[os.path.relpath(path, top)] = hashlib.sha256(file.read()).hexdigest()
print(json.dumps(found))
"""
READ_FSSPEC = """
import hashlib, json, sys, fsspec
files, found = fsspec.filesystem("cacheop"), {}
top = sys.argv[1]
for path in files.find(top):
    found[path[len(top):].lstrip("/")] = hashlib.sha256(files.cat_file(path)).hexdigest()
print(json.dumps(found))
"""


def dataset(name: str, origin: Origin, **spec: Any) -> Object:
    """A Dataset of all files of `origin`."""
    return {
        "apiVersion": "cacheop.io/v1alpha1",
        "kind": "Dataset",
        "metadata": {"name": name},
        "spec": {"mounts": [origin.mount()], **spec},
    }


def apply(namespace: Kubectl, name: str, origin: Origin, **spec: Any) -> None:
    """Apply it with its Secret, and wait until it is Ready."""
    namespace.apply(origin.secret(), dataset(name, origin, **spec))
    ready(namespace, name)


def ready(namespace: Kubectl, name: str, *, seconds: float = READY_SECONDS) -> Object:
    """Wait until the Dataset is Ready; the Dataset."""
    found: Object = namespace.until(
        f"the Dataset {name} is Ready",
        lambda: (got := namespace.get("dataset", name)) and is_ready_dataset(got) and got,
        seconds=seconds,
    )
    return found


def is_ready_dataset(item: Object) -> bool:
    """Whether the workers answer for the newest spec."""
    status = item.get("status") or {}
    return (
        is_ready({"status": status})
        and status.get("observedGeneration") == item["metadata"]["generation"]
    )


def load(namespace: Kubectl, name: str, **spec: Any) -> Object:
    """Apply a DataLoad for the Dataset of that name, and wait until it is Complete."""
    wanted = {"apiVersion": "cacheop.io/v1alpha1", "kind": "DataLoad",
              "metadata": {"name": f"load-{name}"}, "spec": {"dataset": name, **spec}}  # fmt: skip
    namespace.apply(wanted)
    found: Object = namespace.until(
        f"the DataLoad of {name} is Complete",
        lambda: (
            (got := namespace.get("dataload", f"load-{name}"))
            and (got.get("status") or {}).get("phase") == "Complete"
            and got
        ),
    )
    return found


def workers(namespace: Kubectl, dataset: str = "mine") -> dict[str, str]:
    """Node -> uid of its worker, of those that are ready and stay."""
    return {
        item["spec"]["nodeName"]: item["metadata"]["uid"]
        for item in namespace.list("pods", f"cacheop.io/dataset={dataset}")
        if is_ready(item) and not item["metadata"].get("deletionTimestamp")
    }


def claim_volume(dataset_name: str) -> Object:
    """By PersistentVolumeClaim."""
    return {"name": "data",
            "persistentVolumeClaim": {"claimName": dataset_name, "readOnly": True}}  # fmt: skip


def inline_volume(dataset_name: str, **attributes: str) -> Object:
    """By an inline volume."""
    wanted = {"dataset": dataset_name, **attributes}
    csi = {"driver": "cacheop.io", "readOnly": True, "volumeAttributes": wanted}
    return {"name": "data", "csi": csi}


def user(name: str, image: str, command: list[str], volume: Object, **more: Any) -> Object:
    """A pod with the volume at WHERE."""
    mounts = [{"name": "data", "mountPath": WHERE, "readOnly": True,
               "mountPropagation": "HostToContainer"}]  # fmt: skip
    return pod(name, image, command, volumes=[volume], mounts=mounts, **more)


def reader(name: str, image: str, volume: Object, **more: Any) -> Object:
    """A pod that reads every file and prints the checksums."""
    return user(name, image, ["python", "-c", READ, WHERE], volume, **more)


def with_environment(item: Object, **variables: Any) -> Object:
    """The pod with these variables; a dict is a valueFrom."""
    item["spec"]["containers"][0]["env"] = [
        {"name": name, **({"valueFrom": value} if isinstance(value, dict) else {"value": value})}
        for name, value in variables.items()
    ]
    return item


def read_by(namespace: Kubectl, item: Object, *, seconds: float = 60.0) -> dict[str, str]:
    """Run the reading pod; path -> checksum as it saw them."""
    namespace.apply(item)
    return printed(namespace, item["metadata"]["name"], seconds=seconds)


def printed(namespace: Kubectl, name: str, *, seconds: float = 60.0) -> dict[str, str]:
    """What a reading pod that was applied before saw."""
    found: dict[str, str] = json.loads(namespace.output_of(name, seconds=seconds))
    return found
