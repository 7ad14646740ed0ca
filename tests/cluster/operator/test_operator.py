"""The operator against a real API server: what is applied, what comes back, what ends."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from cacheop.operator import rbac
from tests.cluster.operator.control_plane import ApiRefused, decoded, wait_for
from tests.cluster.operator.lab import CORE, GROUP, KEY, OBJECTS, SYSTEM, uid_of

if TYPE_CHECKING:
    from tests.cluster.operator.lab import Lab, OperatorProcess

pytestmark = [pytest.mark.node, pytest.mark.timeout(180)]
JSON = dict[str, Any]


def test_a_dataset_gets_all_it_needs(lab: Lab, team: str) -> None:
    uid = uid_of(lab, team)
    for what, path in OBJECTS.items():
        metadata = lab.api.get(path.format(team))["metadata"]
        if what != "Secret":
            assert [o["uid"] for o in metadata["ownerReferences"]] == [uid], what
    volume = f"/api/v1/persistentvolumes/cacheop-{uid}"
    if lab.plane.has_controllers:
        wait_for(lambda: lab.api.get(volume)["status"].get("phase") == "Bound", 20, "it is bound")
    secret = decoded(lab.api.get(OBJECTS["Secret"].format(team)))
    assert secret == {
        f"{uid}.control": KEY.control(uid),
        f"{uid}.client": KEY.client(uid),
        f"{uid}.redis": KEY.redis(uid),
    }
    wait_for(lambda: lab.condition(team, "Ready"), 10, "the status says something")
    status = lab.status(team)
    assert status["phase"] == "Pending"
    assert status["observedGeneration"] == 1
    mine = {"namespace": team, "name": "mine", "uid": uid}

    def listed() -> bool:
        found = lab.api.find(f"/api/v1/namespaces/{SYSTEM}/configmaps/cacheop-datasets")
        return found is not None and mine in json.loads(found["data"]["datasets.json"])["datasets"]

    wait_for(listed, 10, "node plugins know of it")


def test_kopf_writes_nothing_on_it(lab: Lab, team: str) -> None:
    metadata = lab.api.get(lab.path(team))["metadata"]
    assert "annotations" not in metadata
    assert metadata["finalizers"] == ["cacheop.io/finalizer"]


@pytest.mark.parametrize("what", OBJECTS)
def test_what_is_deleted_by_hand_comes_back(lab: Lab, team: str, what: str) -> None:
    path = OBJECTS[what].format(team)
    before = lab.api.get(path)["metadata"]["uid"]
    if what == "PersistentVolumeClaim" and not lab.plane.has_controllers:
        pytest.skip("nobody takes away its finalizer")
    lab.api.delete(path)

    def back() -> bool:
        found = lab.api.find(path)
        return found is not None and found["metadata"]["uid"] != before

    wait_for(back, 20, f"{what} is back")
    if what == "PersistentVolumeClaim":
        wait_for(lambda: lab.api.get(path)["status"].get("phase") == "Bound", 30, "bound again")


@pytest.mark.usefixtures("controllers")
def test_a_volume_that_is_deleted_comes_back(lab: Lab, team: str) -> None:
    """Its claim is Lost for a moment: both are made anew."""
    path = f"/api/v1/persistentvolumes/cacheop-{uid_of(lab, team)}"
    before = lab.api.get(path)["metadata"]["uid"]
    lab.api.delete(path)
    lab.api.merge(path, {"metadata": {"finalizers": None}})
    wait_for(
        lambda: (lab.api.find(path) or {"metadata": {"uid": before}})["metadata"]["uid"] != before,
        20,
        "the volume is back",
    )
    claim = OBJECTS["PersistentVolumeClaim"].format(team)
    wait_for(lambda: lab.api.get(claim)["status"]["phase"] == "Bound", 40, "bound again")


EDITS: dict[str, JSON] = {
    "ConfigMap": {"data": {"worker.json": "{}"}},
    "Service": {"spec": {"internalTrafficPolicy": "Cluster"}},
    "headless Service": {"spec": {"publishNotReadyAddresses": False}},
    "NetworkPolicy": {"spec": {"ingress": []}},
    "DaemonSet": {"spec": {"template": {"spec": {"tolerations": []}}}},
    "PersistentVolumeClaim": {"metadata": {"labels": {"cacheop.io/dataset": "other"}}},
}


@pytest.mark.parametrize("what", EDITS)
def test_what_is_edited_by_hand_comes_back(lab: Lab, team: str, what: str) -> None:
    path = OBJECTS[what].format(team)
    before = lab.api.get(path)
    lab.api.merge(path, EDITS[what])

    def same() -> bool:
        now = lab.api.get(path)
        return (
            all(now.get(part) == before.get(part) for part in ("spec", "data"))
            and now["metadata"]["labels"] == before["metadata"]["labels"]
        )

    wait_for(same, 15, f"{what} is as it was")


def test_a_secret_that_is_edited_is_mended_without_being_read(lab: Lab, team: str) -> None:
    uid, path = uid_of(lab, team), OBJECTS["Secret"].format(team)
    lab.api.merge(path, {"data": {f"{uid}.control": "ZXZpbA==", "mine": "bWluZQ=="}})
    wait_for(
        lambda: decoded(lab.api.get(path))[f"{uid}.control"] == KEY.control(uid), 10, "it is mended"
    )
    assert decoded(lab.api.get(path))["mine"] == "mine", "what others put there stays"


def test_edits_of_the_spec_are_taken_up(lab: Lab, team: str) -> None:
    config = OBJECTS["ConfigMap"].format(team)
    lab.api.merge(lab.path(team), {"spec": {"replicas": 2, "suspend": True}})
    wait_for(lambda: len(lab.named(team)) == 2, 10, "two nodes are named")

    def suspended() -> bool:
        return bool(json.loads(lab.api.get(config)["data"]["worker.json"])["suspend"])

    wait_for(suspended, 10, "workers are told")
    lab.api.merge(lab.path(team), {"spec": {"worker": {"podLabels": {"team": "vision"}}}})

    def labelled() -> bool:
        template = lab.api.get(OBJECTS["DaemonSet"].format(team))["spec"]["template"]
        return template["metadata"]["labels"].get("team") == "vision"

    wait_for(labelled, 10, "the label is in the template")
    lab.api.merge(lab.path(team), {"spec": {"worker": None}})
    wait_for(lambda: not labelled(), 10, "and out of it again")


def test_a_claim_of_somebody_else_is_left_alone(lab: Lab, operator: OperatorProcess) -> None:
    del operator
    namespace = lab.namespace()
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    theirs = f"{CORE.format(namespace)}/persistentvolumeclaims"
    before = lab.api.create(theirs, {"metadata": {"name": "mine"}, "spec": spec})
    lab.dataset(namespace)
    found = wait_for(lambda: lab.condition(namespace, "Ready"), 10, "it says so")
    assert found["reason"] == "NameTaken"
    assert f"PersistentVolumeClaim {namespace}/mine" in found["message"]
    now = lab.api.get(f"{theirs}/mine")
    assert now["metadata"]["uid"] == before["metadata"]["uid"]
    assert "labels" not in now["metadata"]
    lab.api.delete(lab.path(namespace))
    wait_for(lambda: lab.api.find(lab.path(namespace)) is None, 15, "it can be deleted")
    assert lab.api.find(f"{theirs}/mine") is not None


@pytest.mark.usefixtures("controllers")
def test_shared_only_with_who_accepts(lab: Lab, team: str) -> None:
    friendly = lab.namespace(**{"cacheop.io/accept-from": f"other,{team}"})
    silent = lab.namespace()
    lab.api.merge(lab.path(team), {"spec": {"shareWith": {"namespaces": [friendly, silent]}}})
    claim = "{}/persistentvolumeclaims/mine"
    there = claim.format(CORE.format(friendly))
    wait_for(
        lambda: (lab.api.find(there) or {}).get("status", {}).get("phase") == "Bound", 15, "bound"
    )
    assert lab.api.find(claim.format(CORE.format(silent))) is None
    shared = wait_for(lambda: lab.condition(team, "Shared"), 10, "it says so")
    assert silent in shared["message"]
    uid = uid_of(lab, team)
    secret = OBJECTS["Secret"].format(friendly)
    wait_for(lambda: lab.api.find(secret), 15, "its pods get a token")
    assert decoded(lab.api.get(secret)) == {f"{uid}.client": KEY.client(uid)}
    lab.user_pod(friendly, "reader", "node-b")
    wait_for(lambda: "node-b" in lab.named(team), 5, "its pods bring workers too")
    lab.end_pod(friendly, "reader")
    lab.api.merge(lab.path(team), {"spec": {"shareWith": None}})
    wait_for(lambda: lab.api.find(there) is None, 15, "the claim is gone")


def test_a_bad_spec_that_the_api_server_cannot_see_is_told(
    lab: Lab, operator: OperatorProcess
) -> None:
    del operator
    namespace = lab.namespace()
    secret = {"secretKeyRef": {"name": "s3", "key": "key"}}
    mount = {
        "mountPoint": "s3://bucket/",
        "options": {"key": "x"},
        "encryptOptions": [{"name": "key", "valueFrom": secret}],
    }
    lab.dataset(namespace, mounts=[mount])
    found = wait_for(lambda: lab.condition(namespace, "Ready"), 10, "it is told")
    assert found["reason"] == "InvalidSpec"
    assert "keep only one of them" in found["message"]
    lab.api.delete(lab.path(namespace))
    wait_for(lambda: lab.api.find(lab.path(namespace)) is None, 15, "it can be deleted")


def test_the_operator_read_no_secret_and_asked_little(
    lab: Lab, team: str, operator: OperatorProcess
) -> None:
    del team
    import urllib.request

    def calls() -> dict[str, int]:
        url = f"http://127.0.0.1:{operator.port}/metrics"
        with urllib.request.urlopen(url, timeout=5) as answer:
            text = answer.read().decode()
        lines = [line for line in text.splitlines() if "api_calls_total{" in line]
        return {line.split("{")[1].split("}")[0]: int(line.split()[-1]) for line in lines}

    time.sleep(5)
    before = calls()
    time.sleep(10)
    after = calls()
    assert not any("secrets" in key and "patch" not in key and "delete" not in key for key in after)
    grown = {key: after[key] - before.get(key, 0) for key in after if after[key] != before.get(key)}
    print("calls in 10 s of rest:", grown)
    quiet = {k: v for k, v in grown.items() if "leases" not in k and "secrets" not in k}
    assert sum(quiet.values()) <= 5, quiet
    with pytest.raises(ApiRefused, match="forbidden"):
        lab.plane.operator.get("/api/v1/secrets")


def test_rights_are_few() -> None:
    rules = rbac.rules((*rbac.ANYWHERE, *rbac.CLUSTER, *rbac.SYSTEM))
    for rule in rules:
        assert "*" not in (*rule["apiGroups"], *rule["resources"], *rule["verbs"])
        if "secrets" in rule["resources"]:
            assert not {"get", "list", "watch"} & set(rule["verbs"])
            assert rule["verbs"] == ["create"] or rule["resourceNames"] == ["cacheop"]
        if "nodes" in rule["resources"]:
            assert set(rule["verbs"]) <= {"list", "watch"}
        assert not any("exec" in resource for resource in rule["resources"])


def test_the_group_is_ours() -> None:
    assert GROUP == "/apis/cacheop.io/v1alpha1"
