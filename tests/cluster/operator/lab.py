"""What tests of the operator do to a cluster: its processes, nodes, pods, Datasets."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from cacheop.operator import naming, rbac
from cacheop.operator.tokens import MasterKey
from tests.cluster.operator.control_plane import WITH_US, ApiRefused, free_port, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.operator.control_plane import ControlPlane

JSON = dict[str, Any]
TREE = Path(__file__).parents[3]
SYSTEM = "cacheop-system"
KEY = MasterKey(b"k" * 32)
GROUP = "/apis/cacheop.io/v1alpha1"
STOP_SECONDS = 15.0
CORE, APPS = "/api/v1/namespaces/{}", "/apis/apps/v1/namespaces/{}"
OBJECTS = {
    "ConfigMap": f"{CORE}/configmaps/cacheop-mine",
    "Service": f"{CORE}/services/cacheop-mine",
    "headless Service": f"{CORE}/services/cacheop-mine-workers",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies/cacheop-mine",
    "DaemonSet": f"{APPS}/daemonsets/cacheop-mine",
    "PersistentVolumeClaim": f"{CORE}/persistentvolumeclaims/mine",
    "Secret": f"{CORE}/secrets/cacheop",
}


class Lab:
    """One control plane with our CRDs and the operator's rights in it."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane, self.api = plane, plane.admin
        self._key = plane.directory / "master.key"
        self._key.write_bytes(KEY.key)
        self._number = 0

    def prepare(self) -> None:
        """CRDs as they are in the tree, and exactly the rights that the operator says it needs."""
        for file in sorted((TREE / "crds").glob("*.yaml")):
            document = yaml.safe_load(file.read_text())
            self.api.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", document)
        for plural in ("datasets", "dataloads"):
            wait_for(lambda p=plural: self._serves(p), 20, f"{plural} are served")
        self.namespace(SYSTEM)
        rights = (("cluster", (*rbac.ANYWHERE, *rbac.CLUSTER)), ("system", rbac.SYSTEM))
        for name, some in rights:
            self.grant(name, rbac.rules(some), "" if name == "cluster" else SYSTEM)

    def _serves(self, plural: str) -> bool:
        try:
            self.api.get(f"{GROUP}/{plural}")
        except ApiRefused:
            return False
        return True

    def grant(self, name: str, rules: list[JSON], namespace: str) -> None:
        """A role, in a namespace or in the cluster, for the operator's user."""
        cluster = "" if namespace else "Cluster"
        where = f"/namespaces/{namespace}" if namespace else ""
        root = f"/apis/rbac.authorization.k8s.io/v1{where}"
        meta = {"name": f"cacheop-{name}"}
        self.api.create(f"{root}/{cluster.lower()}roles", {"metadata": meta, "rules": rules})
        self.api.create(
            f"{root}/{cluster.lower()}rolebindings",
            {
                "metadata": meta,
                "roleRef": {
                    "apiGroup": "rbac.authorization.k8s.io",
                    "kind": f"{cluster}Role",
                    "name": meta["name"],
                },
                "subjects": [
                    {"kind": "User", "name": "operator", "apiGroup": "rbac.authorization.k8s.io"}
                ],
            },
        )

    def namespace(self, name: str = "", **annotations: str) -> str:
        """A new namespace."""
        self._number += 1
        name = name or f"team-{self._number}"
        self.api.create(
            "/api/v1/namespaces", {"metadata": {"name": name, "annotations": annotations}}
        )
        return name

    def node(self, name: str, **spec: Any) -> str:
        """A node that is ready."""
        self.api.create("/api/v1/nodes", {"metadata": {"name": name}, "spec": spec})
        self.api.merge(
            f"/api/v1/nodes/{name}/status",
            {"status": {"conditions": [{"type": "Ready", "status": "True"}]}},
        )
        return name

    def dataset(self, namespace: str, name: str = "mine", **spec: Any) -> JSON:
        """A new Dataset."""
        return self.api.create(
            f"{GROUP}/namespaces/{namespace}/datasets", dataset_document(name, **spec)
        )

    def load(self, namespace: str, name: str, **spec: Any) -> JSON:
        """A new DataLoad."""
        document = {
            "apiVersion": "cacheop.io/v1alpha1",
            "kind": "DataLoad",
            "metadata": {"name": name},
            "spec": {"dataset": "mine", **spec},
        }
        return self.api.create(f"{GROUP}/namespaces/{namespace}/dataloads", document)

    def path(self, namespace: str, name: str = "mine", kind: str = "datasets") -> str:
        return f"{GROUP}/namespaces/{namespace}/{kind}/{name}"

    def status(self, namespace: str, name: str = "mine", kind: str = "datasets") -> JSON:
        found: JSON = self.api.get(self.path(namespace, name, kind)).get("status") or {}
        return found

    def condition(self, namespace: str, kind: str, name: str = "mine") -> JSON:
        conditions = self.status(namespace, name).get("conditions") or []
        return next((c for c in conditions if c["type"] == kind), {})

    def user_pod(self, namespace: str, name: str, node: str, claim: str = "mine") -> JSON:
        """A pod that mounts the claim on a node."""
        volume = {"name": "data", "persistentVolumeClaim": {"claimName": claim}}
        container = {"name": "c", "image": "none"}
        spec = {"nodeName": node, "containers": [container], "volumes": [volume]}
        return self.api.create(
            f"/api/v1/namespaces/{namespace}/pods", {"metadata": {"name": name}, "spec": spec}
        )

    def end_pod(self, namespace: str, name: str) -> None:
        """Delete it as a kubelet does in the end."""
        self.api.delete(f"/api/v1/namespaces/{namespace}/pods/{name}", gracePeriodSeconds=0)

    def named(self, namespace: str, name: str = "mine") -> set[str]:
        """The nodes that the DaemonSet names."""
        path = f"/apis/apps/v1/namespaces/{namespace}/daemonsets/cacheop-{name}"
        found = self.api.find(path)
        if found is None:
            return set()
        affinity = found["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]
        terms = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
        return {f["values"][0] for term in terms for f in term.get("matchFields", ())}

    def workers(self, namespace: str, name: str = "mine") -> list[JSON]:
        """The worker pods there are; those that are being deleted end now, as by a kubelet."""
        found = []
        for pod in self._pods(namespace, name):
            if pod["metadata"].get("deletionTimestamp"):
                self.end_pod(namespace, pod["metadata"]["name"])
            else:
                found.append(pod)
        if self.plane.has_controllers:
            return found
        there = {self.target(pod) for pod in found}
        gone = [pod for pod in found if self.target(pod) not in self.named(namespace, name)]
        for pod in gone:
            self.end_pod(namespace, pod["metadata"]["name"])
        for node in sorted(self.named(namespace, name) - there):
            self._make_pod(namespace, name, node)
        return [pod for pod in self._pods(namespace, name) if pod not in gone]

    def _pods(self, namespace: str, name: str) -> list[JSON]:
        selector = f"{naming.DATASET_LABEL}%3D{name}"
        return self.api.items(f"/api/v1/namespaces/{namespace}/pods?labelSelector={selector}")

    def _make_pod(self, namespace: str, name: str, node: str) -> None:
        """Play DaemonSet controller."""
        path = f"/apis/apps/v1/namespaces/{namespace}/daemonsets/cacheop-{name}"
        template = self.api.get(path)["spec"]["template"]
        field = {"key": "metadata.name", "operator": "In", "values": [node]}
        affinity = template["spec"]["affinity"]["nodeAffinity"]
        affinity["requiredDuringSchedulingIgnoredDuringExecution"] = {
            "nodeSelectorTerms": [{"matchFields": [field]}]
        }
        template["metadata"] = {
            "labels": template["metadata"]["labels"],
            "annotations": template["metadata"]["annotations"],
            "generateName": f"cacheop-{name}-",
        }
        self.api.create(f"/api/v1/namespaces/{namespace}/pods", template)

    def target(self, pod: JSON) -> str:
        """For which node it is."""
        affinity = pod["spec"]["affinity"]["nodeAffinity"]
        terms = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
        return str(terms[0]["matchFields"][0]["values"][0])

    def run_worker(self, pod: JSON, ip: str) -> None:
        """Play scheduler and kubelet: the pod runs on its node and is ready."""
        meta = pod["metadata"]
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
        if not pod["spec"].get("nodeName"):
            target = {"apiVersion": "v1", "kind": "Node", "name": self.target(pod)}
            binding = {"metadata": {"name": meta["name"]}, "target": target}
            self.api.create(f"{path}/binding", binding)
        status = {
            "phase": "Running",
            "podIP": ip,
            "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": "True"}],
        }
        self.api.merge(f"{path}/status", {"status": status})

    def plugin(self, node: str) -> None:
        """A node plugin that is ready on `node`."""
        labels = {naming.NAME_LABEL: "cacheop", naming.COMPONENT_LABEL: naming.NODE_PLUGIN}
        spec = {"nodeName": node, "containers": [{"name": "c", "image": "none"}]}
        path = f"/api/v1/namespaces/{SYSTEM}/pods"
        metadata = {"name": f"plugin-{node}", "labels": labels}
        self.api.create(path, {"metadata": metadata, "spec": spec})
        status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        self.api.merge(f"{path}/plugin-{node}/status", {"status": status})

    def events(self, namespace: str, about: str) -> list[JSON]:
        """What was said about an object."""
        found = self.api.items(f"/api/v1/namespaces/{namespace}/events")
        return [event for event in found if event["involvedObject"]["name"] == about]

    @contextlib.contextmanager
    def operator(self, identity: str = "one", **settings: Any) -> Iterator[OperatorProcess]:
        """A process of the operator."""
        process = OperatorProcess(self, identity, settings)
        try:
            yield process
        finally:
            process.stop()


class OperatorProcess:
    """`python -m cacheop.operator` with the rights of its user."""

    def __init__(self, lab: Lab, identity: str, settings: dict[str, Any]) -> None:
        self.port = free_port()
        self.log_file = lab.plane.directory / f"operator-{identity}.log"
        environment = {
            **os.environ,
            "KUBECONFIG": str(lab.plane.kubeconfig(lab.plane.operator)),
            "CACHEOP_MASTER_KEY_FILE": str(lab._key),
            "CACHEOP_IDENTITY": identity,
            "CACHEOP_NAMESPACE": SYSTEM,
            "CACHEOP_HTTP_PORT": str(self.port),
            "CACHEOP_SECRET_SECONDS": "2",
            "CACHEOP_POLL_SECONDS": "1",
            "CACHEOP_DRAIN_SECONDS": "20",
            **{name: str(value) for name, value in settings.items()},
        }
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [*WITH_US, sys.executable, "-m", "cacheop.operator"],
                cwd=TREE,
                env=environment,
                stdout=log,
                stderr=log,
            )

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def wait_active(self, seconds: float = 30.0) -> float:
        """Until it is the active one; the seconds that took."""
        began = time.monotonic()

        def active() -> bool:
            assert self.process.poll() is None, self.log[-3000:]
            return "is the active operator" in self.log

        wait_for(active, seconds, "the operator is active")
        return time.monotonic() - began

    def kill(self) -> None:
        """As if its node went."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(STOP_SECONDS)

    def stop(self) -> int:
        """Ask it to end; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(STOP_SECONDS)
            raise


def dataset_document(name: str = "mine", **spec: Any) -> JSON:
    """As a person writes it."""
    return {
        "apiVersion": "cacheop.io/v1alpha1",
        "kind": "Dataset",
        "metadata": {"name": name},
        "spec": {"mounts": [{"mountPoint": "s3://bucket/data/"}], **spec},
    }


def uid_of(lab: Lab, namespace: str) -> str:
    """The uid of the Dataset `mine`."""
    return str(lab.api.get(lab.path(namespace))["metadata"]["uid"])
