"""Datasets that are deleted: who is waited for, what goes, and that it always ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cluster.operator.control_plane import wait_for
from tests.cluster.operator.lab import OBJECTS, SYSTEM

if TYPE_CHECKING:
    from tests.cluster.operator.lab import Lab, OperatorProcess

pytestmark = [pytest.mark.node, pytest.mark.timeout(180)]


@pytest.mark.usefixtures("controllers")
def test_deleting_waits_for_pods_and_ends(lab: Lab, operator: OperatorProcess) -> None:
    del operator
    namespace = lab.namespace()
    created = lab.dataset(namespace, deletion={"timeout": "60s"})
    uid = created["metadata"]["uid"]
    wait_for(lambda: lab.api.find(OBJECTS["PersistentVolumeClaim"].format(namespace)), 15, "ready")
    lab.user_pod(namespace, "train", "node-a")
    wait_for(lambda: "node-a" in lab.named(namespace), 10, "it is seen")
    lab.api.delete(lab.path(namespace))
    found = wait_for(
        lambda: lab.status(namespace)["phase"] == "Deleting" and lab.condition(namespace, "Ready"),
        10,
        "it says Deleting",
    )
    assert f"in use by pod {namespace}/train" in found["message"]
    assert any(e["reason"] == "WaitingForPods" for e in lab.events(namespace, "mine"))
    lab.end_pod(namespace, "train")
    wait_for(lambda: lab.api.find(lab.path(namespace)) is None, 15, "it is gone")
    wait_for(lambda: lab.api.find(f"/api/v1/persistentvolumes/cacheop-{uid}") is None, 30, "volume")
    for what, path in OBJECTS.items():
        wait_for(lambda p=path: lab.api.find(p.format(namespace)) is None, 30, f"{what} is gone")

    def unlisted() -> bool:
        listed = lab.api.find(f"/api/v1/namespaces/{SYSTEM}/configmaps/cacheop-datasets")
        return listed is not None and uid not in listed["data"]["datasets.json"]

    wait_for(unlisted, 10, "node plugins may clean up")


def test_deleting_goes_on_after_its_timeout(lab: Lab, operator: OperatorProcess) -> None:
    del operator
    namespace = lab.namespace()
    lab.dataset(namespace, deletion={"timeout": "3s"})
    wait_for(lambda: lab.api.find(OBJECTS["PersistentVolumeClaim"].format(namespace)), 15, "ready")
    lab.user_pod(namespace, "train", "node-a")
    wait_for(lambda: "node-a" in lab.named(namespace), 10, "it is seen")
    lab.api.delete(lab.path(namespace))
    wait_for(lambda: lab.api.find(lab.path(namespace)) is None, 15, "it is gone all the same")
    lab.end_pod(namespace, "train")


@pytest.mark.usefixtures("controllers")
def test_a_namespace_can_be_deleted(lab: Lab, operator: OperatorProcess) -> None:
    del operator
    namespace = lab.namespace()
    lab.dataset(namespace)
    wait_for(lambda: lab.api.find(OBJECTS["DaemonSet"].format(namespace)), 15, "it is there")
    lab.api.delete(f"/api/v1/namespaces/{namespace}")
    wait_for(lambda: lab.api.find(f"/api/v1/namespaces/{namespace}") is None, 60, "it is gone")
