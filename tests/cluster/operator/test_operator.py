"""The operator against a real API server: what is applied, what comes back, what ends."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from cacheop.operator import rbac
from tests.cluster.operator.control_plane import ApiRefused, decoded, wait_for
from tests.cluster.operator.lab import GROUP, KEY, SYSTEM
from tests.fakes.control_port import VERSION, ControlPorts, ScriptedWorker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.operator.lab import Lab, OperatorProcess

pytestmark = [pytest.mark.node, pytest.mark.timeout(180)]
JSON = dict[str, Any]
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


@pytest.fixture(scope="module")
def nodes(lab: Lab) -> list[str]:
    taint = {"key": "gpu", "value": "yes", "effect": "NoSchedule"}
    found = [lab.node("node-a"), lab.node("node-b"), lab.node("node-c", taints=[taint])]
    for name in found:
        lab.plugin(name)
    return found


@pytest.fixture(scope="module")
def operator(lab: Lab, nodes: list[str]) -> Iterator[OperatorProcess]:
    del nodes
    with lab.operator("module") as process:
        process.wait_active()
        yield process
        print(process.log[-6000:])


@pytest.fixture
def team(lab: Lab, operator: OperatorProcess) -> Iterator[str]:
    """A namespace of its own with the Dataset `mine`, and its objects."""
    assert operator.process.poll() is None, operator.log[-3000:]
    namespace = lab.namespace()
    lab.dataset(namespace)
    for what, path in OBJECTS.items():
        wait_for(lambda p=path: lab.api.find(p.format(namespace)), 20, f"{what} is there")
    yield namespace
    lab.api.merge(lab.path(namespace), {"spec": {"deletion": {"whenMounted": "Force"}}})
    lab.api.delete(lab.path(namespace))
    wait_for(lambda: lab.api.find(lab.path(namespace)) is None, 20, "the Dataset is gone")


def uid_of(lab: Lab, namespace: str) -> str:
    return str(lab.api.get(lab.path(namespace))["metadata"]["uid"])


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


@pytest.mark.usefixtures("controllers")
def test_a_pod_brings_a_worker_to_its_node(lab: Lab, team: str) -> None:
    lab.api.merge(lab.path(team), {"spec": {"worker": {"idle": "3s"}}})
    there = wait_for(lambda: lab.named(team), 10, "one node is named")
    for node in ("node-a", "node-b", "node-c"):
        if node in there:
            continue
        began = time.monotonic()
        lab.user_pod(team, f"train-{node}", node)
        wait_for(lambda n=node: n in lab.named(team), 5, f"{node} is named")
        wait_for(
            lambda n=node: n in {lab.target(pod) for pod in lab.workers(team)}, 5, "it has a pod"
        )
        print(f"{node}: {time.monotonic() - began:.2f} s")
    assert len(lab.named(team)) == 3
    for node in ("node-a", "node-b", "node-c"):
        lab.end_pod(team, f"train-{node}")
    wait_for(lambda: len(lab.named(team)) == 1, 15, "idle workers are gone")


def test_what_hinders_a_worker_is_an_event_on_the_pod(lab: Lab, team: str) -> None:
    lab.api.merge(lab.path(team), {"spec": {"tolerations": []}})
    lab.user_pod(team, "train", "node-c")
    (event,) = wait_for(lambda: lab.events(team, "train"), 10, "there is an event")
    assert event["reason"] == "CacheWorkerBlocked"
    assert "does not tolerate the taint gpu=yes:NoSchedule of node node-c" in event["message"]
    lab.end_pod(team, "train")


@pytest.mark.usefixtures("controllers")
def test_a_quota_that_is_used_up_is_an_event_on_the_pod(lab: Lab, team: str) -> None:
    quota = {"metadata": {"name": "q"}, "spec": {"hard": {"limits.memory": "1Mi"}}}
    lab.api.create(f"{CORE.format(team)}/resourcequotas", quota)
    wait_for(
        lambda: (lab.api.get(f"{CORE.format(team)}/resourcequotas/q").get("status") or {}).get(
            "used"
        ),
        10,
        "the quota is counted",
    )
    for pod in lab.workers(team):
        lab.end_pod(team, pod["metadata"]["name"])
    free = next(n for n in ("node-a", "node-b") if n not in lab.named(team))
    container = {
        "name": "c",
        "image": "none",
        "resources": {"limits": {"memory": "1", "cpu": "1m"}},
    }
    volume = {"name": "d", "persistentVolumeClaim": {"claimName": "mine"}}
    spec = {"nodeName": free, "containers": [container], "volumes": [volume]}
    lab.api.create(f"{CORE.format(team)}/pods", {"metadata": {"name": "train"}, "spec": spec})
    (event,) = wait_for(lambda: lab.events(team, "train"), 20, "there is an event")
    assert "exceeded quota" in event["message"]
    lab.end_pod(team, "train")


@pytest.fixture
def ports() -> Iterator[ControlPorts]:
    with ControlPorts() as found:
        yield found


def play(lab: Lab, ports: ControlPorts, namespace: str, host: str) -> dict[str, ScriptedWorker]:
    """Run every worker pod that waits; 127.77.HOST.n is its address."""
    token = KEY.control(uid_of(lab, namespace))
    found: dict[str, ScriptedWorker] = {}
    pods = [pod for pod in lab.workers(namespace) if not pod["status"].get("podIP")]
    for number, pod in enumerate(pods):
        node, ip = lab.target(pod), f"127.77.{host}.{number + 1}"
        found[node] = ScriptedWorker(node)
        ports.open(found[node], ip, token, 7071)
        lab.run_worker(pod, ip)
    return found


@pytest.mark.usefixtures("controllers")
def test_status_and_commands_go_by_the_control_port(
    lab: Lab, team: str, ports: ControlPorts
) -> None:
    wait_for(lambda: lab.workers(team), 10, "there is a pod")
    (worker,) = play(lab, ports, team, "1").values()
    wait_for(lambda: lab.status(team)["phase"] == "Ready", 10, "it is Ready")
    status = lab.status(team)
    assert (status["version"], status["fileNum"], status["ufsTotal"]) == (VERSION, 10, "1000")
    assert status["cacheStates"]["cachedPercentage"] == "25.0%"
    assert status["readyReplicas"] == 1
    lab.api.merge(lab.path(team), {"spec": {"suspend": True}})
    wait_for(lambda: "suspend" in worker.ops(), 10, "it is suspended")
    lab.api.merge(lab.path(team), {"spec": {"suspend": False, "refresh": {"requestedAt": "now"}}})
    wait_for(lambda: {"resume", "refresh"} <= set(worker.ops()), 10, "it goes on")
    wait_for(lambda: lab.status(team).get("refreshedAt") == "now", 10, "the refresh is done")
    assert worker.ops().count("refresh") == 1
    configured = [m for m in worker.asked if m["op"] == "configure"][-1]
    assert configured["dataset"]["spec"]["refresh"] == {"requestedAt": "now"}


@pytest.mark.usefixtures("controllers")
def test_scaling_in_hands_over_first_and_an_old_template_is_rolled(
    lab: Lab, team: str, ports: ControlPorts
) -> None:
    lab.api.merge(lab.path(team), {"spec": {"replicas": 2, "worker": {"idle": "1s"}}})
    wait_for(lambda: len(lab.workers(team)) == 2, 10, "there are two pods")
    workers = play(lab, ports, team, "2")
    wait_for(lambda: lab.status(team)["readyReplicas"] == 2, 10, "both are ready")
    before = {pod["metadata"]["name"] for pod in lab.workers(team)}
    # A new template: one at a time, the other only when the first one's successor is ready.
    change = {"worker": {"podAnnotations": {"x": "y"}, "idle": "1s"}}
    lab.api.merge(lab.path(team), {"spec": change})
    left = wait_for(
        lambda: before - {pod["metadata"]["name"] for pod in lab.workers(team)}, 15, "one goes"
    )
    time.sleep(2)
    assert len(before - {pod["metadata"]["name"] for pod in lab.workers(team)}) == 1, left
    for pod in lab.workers(team):
        if pod["metadata"]["name"] not in before:
            node = lab.target(pod)
            ip = "127.77.2.1" if list(workers).index(node) == 0 else "127.77.2.2"
            lab.run_worker(pod, ip)
    wait_for(
        lambda: not before & {pod["metadata"]["name"] for pod in lab.workers(team)}, 15, "both went"
    )
    for pod in lab.workers(team):
        if not pod["status"].get("podIP"):
            ip = "127.77.2.1" if list(workers).index(lab.target(pod)) == 0 else "127.77.2.2"
            lab.run_worker(pod, ip)
    wait_for(lambda: lab.status(team)["readyReplicas"] == 2, 10, "both are ready again")
    lab.api.merge(lab.path(team), {"spec": {"replicas": 1}})
    wait_for(lambda: len(lab.named(team)) == 1, 15, "one node is left")
    drained = [node for node, worker in workers.items() if "drain" in worker.ops()]
    assert len(drained) == 1
    assert drained[0] not in lab.named(team)


@pytest.mark.usefixtures("controllers")
def test_a_load_is_driven_to_its_end(lab: Lab, team: str, ports: ControlPorts) -> None:
    wait_for(lambda: lab.workers(team), 10, "there is a pod")
    lab.load(team, "early", target=[{"path": "/train"}])
    wait_for(lambda: lab.status(team, "early", "dataloads").get("conditions"), 10, "it waits")
    (worker,) = play(lab, ports, team, "3").values()
    half = {
        "phase": "Loading",
        "bytes": 500,
        "bytes_total": 1000,
        "files": 5,
        "files_total": 10,
        "failed": [],
        "failed_files": 0,
        "rate_bytes_per_second": 100,
        "eta_seconds": 5,
    }
    done = half | {"phase": "Complete", "bytes": 1000, "files": 10}
    worker.loads, worker.pause_seconds = [half, half, half, done], 1.0
    path = lab.path(team, "early", "dataloads")
    wait_for(lambda: lab.api.get(path)["status"]["percentage"] == 50, 15, "it is half-way")
    wait_for(lambda: lab.api.get(path)["status"]["phase"] == "Complete", 15, "it is Complete")
    assert next(m for m in worker.asked if m["op"] == "load")["paths"] == ["train"]
    lab.api.merge(path, {"spec": {"ttlSecondsAfterFinished": 1}})
    wait_for(lambda: lab.api.find(path) is None, 15, "it is deleted after its time")


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
        listed = lab.api.get(f"/api/v1/namespaces/{SYSTEM}/configmaps/cacheop-datasets")
        return uid not in listed["data"]["datasets.json"]

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
