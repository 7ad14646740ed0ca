"""Things die while pods read: nobody who has files open sees an error or a wrong byte."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.cluster import datasets, storm
from tests.cluster.chart import SYSTEM
from tests.cluster.datasets import claim_volume, inline_volume, read_by, reader
from tests.cluster.kubectl import Kubectl, is_ready
from tests.cluster.storm import storm_pod

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.origin import Origin
    from tests.cluster.storm import Storm

pytestmark = pytest.mark.cluster
API_AWAY_SECONDS = 60.0
MODES = ("ZeroOpen", "Fuse")


@pytest.fixture
def storming(namespace: Kubectl, image: str, nodes: list[str], origin: Origin) -> Iterator[Storm]:
    """Two readers on each node, by mounts of two kinds, of a Dataset with a worker on each."""
    datasets.apply(namespace, "mine", origin, allNodes=True)
    pods = [
        storm_pod(f"storm-{mode.lower()}-{node}", image, origin,
                  inline_volume("mine", mode=mode), node=node)
        for node in nodes
        for mode in MODES
    ]  # fmt: skip
    found = storm.begin(namespace, *pods)
    yield found
    found.end()


def workers(namespace: Kubectl, dataset: str = "mine") -> dict[str, str]:
    """Node -> uid of its worker, of those that are ready and stay."""
    return {
        item["spec"]["nodeName"]: item["metadata"]["uid"]
        for item in namespace.list("pods", f"cacheop.io/dataset={dataset}")
        if is_ready(item) and not item["metadata"].get("deletionTimestamp")
    }


def replaced(kubectl: Kubectl, selector: str, before: set[str]) -> bool:
    """Whether as many pods are ready as there were, and none of them was there."""
    found = {p["metadata"]["uid"] for p in kubectl.list("pods", selector) if is_ready(p)}
    return len(found) >= len(before) and not found & before


def roll(kubectl: Kubectl, selector: str, *how: str) -> None:
    """Delete all pods with these labels and wait for new ones."""
    before = {p["metadata"]["uid"] for p in kubectl.list("pods", selector)}
    assert before
    kubectl.run("delete", "pods", f"--selector={selector}", "--wait=false", *how)
    kubectl.until(f"{selector} are new", lambda: replaced(kubectl, selector, before), seconds=90)


def test_two_nodes_read_everything_and_the_origin_gives_it_once(
    namespace: Kubectl, image: str, nodes: list[str], origin: Origin
):
    datasets.apply(namespace, "mine", origin, placement="Cluster", allNodes=True)
    namespace.until("each node has a worker", lambda: set(workers(namespace)) == set(nodes))
    pods = [reader(f"on-{node}", image, claim_volume("mine"), node=node) for node in nodes]
    namespace.apply(*pods)
    for item in pods:
        assert read_by(namespace, item) == origin.digests()
    assert origin.total_bytes <= origin.proxy.object_bytes <= 1.01 * origin.total_bytes
    namespace.until(
        "its status says so",
        lambda: namespace.get("dataset", "mine")["status"]["cacheStates"]["originRatio"] == "1.00",
    )


def test_workers_die(namespace: Kubectl, storming: Storm):
    """Killed, one after the other, then all at once."""
    for node, uid in workers(namespace).items():
        (pod,) = [p["metadata"]["name"] for p in namespace.list("pods", "cacheop.io/dataset=mine")
                  if p["metadata"]["uid"] == uid]  # fmt: skip
        namespace.run("delete", "pod", pod, "--grace-period=0", "--force")
        namespace.until(f"{node} has a worker", lambda node=node, uid=uid:
                        workers(namespace).get(node, uid) != uid)  # fmt: skip
        time.sleep(2)
    roll(namespace, "cacheop.io/dataset=mine", "--grace-period=0", "--force")


def test_operator_node_plugins_and_redis_die(storming: Storm):
    """Each is replaced while the readers read."""
    system = Kubectl(SYSTEM)
    roll(system, "app.kubernetes.io/component=operator", "--grace-period=0", "--force")
    roll(system, "app.kubernetes.io/component=node", "--grace-period=0", "--force")
    roll(system, "app.kubernetes.io/component=redis")
    time.sleep(6)
    system.run("rollout", "restart", "daemonset/cacheop-node")
    system.run("rollout", "status", "daemonset/cacheop-node", "--timeout=120s", seconds=130)


def test_workers_are_rolled_by_a_new_template(namespace: Kubectl, storming: Storm):
    before = workers(namespace)
    namespace.run("patch", "dataset", "mine", "--type=merge",
                  '--patch={"spec":{"worker":{"podAnnotations":{"new":"one"}}}}')  # fmt: skip
    namespace.until(
        "every worker is new",
        lambda: (
            (now := workers(namespace)).keys() == before.keys()
            and not set(now.values()) & set(before.values())
        ),
        seconds=120,
    )


def test_a_minute_without_the_api_server(storming: Storm, control: object):
    control.stop("kube-apiserver")  # type: ignore[attr-defined]
    time.sleep(API_AWAY_SECONDS)
    control.resume("kube-apiserver")  # type: ignore[attr-defined]
    Kubectl(SYSTEM).until(
        "the operator acts again",
        lambda: Kubectl(SYSTEM).get("deployment", "cacheop-operator")["status"]["readyReplicas"],
    )
