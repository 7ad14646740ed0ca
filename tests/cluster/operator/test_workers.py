"""The operator and its workers: placement, status, commands, loads, and what hinders them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.cluster.operator.control_plane import wait_for
from tests.cluster.operator.lab import CORE, JSON, KEY, uid_of
from tests.fakes.control_port import VERSION, ControlPorts, ScriptedWorker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.operator.lab import Lab

pytestmark = [pytest.mark.node, pytest.mark.timeout(180)]


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


def play(
    lab: Lab, ports: ControlPorts, namespace: str, host: str, loads: list[JSON] | None = None
) -> dict[str, ScriptedWorker]:
    """Run every worker pod that waits; 127.77.HOST.n is its address."""
    token = KEY.control(uid_of(lab, namespace))
    found: dict[str, ScriptedWorker] = {}
    pods = [pod for pod in lab.workers(namespace) if not pod["status"].get("podIP")]
    for number, pod in enumerate(pods):
        node, ip = lab.target(pod), f"127.77.{host}.{number + 1}"
        found[node] = ScriptedWorker(node)
        found[node].loads, found[node].pause_seconds = loads or [], 1.0
        ports.open(found[node], ip, token, 7071)
        lab.run_worker(pod, ip)
    return found


def test_status_and_commands_go_by_the_control_port(
    lab: Lab, team: str, ports: ControlPorts
) -> None:
    wait_for(lambda: lab.workers(team), 10, "there is a pod")
    (worker,) = play(lab, ports, team, "1").values()
    wait_for(lambda: lab.status(team)["phase"] == "Ready", 10, "it is Ready")
    wait_for(lambda: lab.status(team)["version"], 10, "the worker was asked")
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


def test_a_load_is_driven_to_its_end(lab: Lab, team: str, ports: ControlPorts) -> None:
    wait_for(lambda: lab.workers(team), 10, "there is a pod")
    lab.load(team, "early", target=[{"path": "/train"}])
    wait_for(lambda: lab.status(team, "early", "dataloads").get("conditions"), 10, "it waits")
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
    (worker,) = play(lab, ports, team, "3", [half, half, half, done]).values()
    path = lab.path(team, "early", "dataloads")
    wait_for(lambda: lab.api.get(path)["status"]["percentage"] == 50, 15, "it is half-way")
    wait_for(lambda: lab.api.get(path)["status"]["phase"] == "Complete", 15, "it is Complete")
    assert next(m for m in worker.asked if m["op"] == "load")["paths"] == ["train"]
    lab.api.merge(path, {"spec": {"ttlSecondsAfterFinished": 1}})
    wait_for(lambda: lab.api.find(path) is None, 15, "it is deleted after its time")
