"""Things die while pods read: nobody who has files open sees an error or a wrong byte."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.cluster import datasets, storm
from tests.cluster.chart import SYSTEM
from tests.cluster.datasets import claim_volume, inline_volume, read_by, reader, workers
from tests.cluster.kubectl import Kubectl, is_ready
from tests.cluster.storm import storm_pod

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cluster.lab.machines import Machine
    from tests.cluster.origin import Origin
    from tests.cluster.storm import Storm

pytestmark = pytest.mark.cluster
API_AWAY_SECONDS = 60.0
MODES = ("ZeroOpen", "Passthrough")  # the latter where the kernel can


@pytest.fixture(scope="module")
def team(make_lasting_namespace: Callable[..., Kubectl]) -> Kubectl:
    """The namespace of the storm."""
    return make_lasting_namespace()


@pytest.fixture(scope="module")
def storm_of_all(
    team: Kubectl, image: str, nodes: list[str], lasting_origin: Origin
) -> Iterator[Storm]:
    """Two readers on each node, by mounts of two kinds, of a Dataset with a worker on each."""
    datasets.apply(team, "mine", lasting_origin, allNodes=True)
    pods = [
        storm_pod(f"storm-{mode.lower()}-{node}", image, lasting_origin,
                  inline_volume("mine", mode=mode), node=node)
        for node in nodes
        for mode in MODES
    ]  # fmt: skip
    found = storm.begin(team, *pods)
    yield found
    found.end()


@pytest.fixture
def storming(storm_of_all: Storm) -> Iterator[Storm]:
    """The storm goes on over the test, and met nothing."""
    yield storm_of_all
    storm_of_all.check()


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


def test_workers_die(team: Kubectl, storming: Storm):
    """Killed, one after the other, then all at once."""
    for node, uid in workers(team).items():
        (pod,) = [p["metadata"]["name"] for p in team.list("pods", "cacheop.io/dataset=mine")
                  if p["metadata"]["uid"] == uid]  # fmt: skip
        team.run("delete", "pod", pod, "--grace-period=0", "--force")
        team.until(f"{node} has a worker", lambda node=node, uid=uid:
                        workers(team).get(node, uid) != uid)  # fmt: skip
        time.sleep(2)
    roll(team, "cacheop.io/dataset=mine", "--grace-period=0", "--force")


def test_operator_node_plugins_and_redis_die(storming: Storm):
    """Each is replaced while the readers read."""
    system = Kubectl(SYSTEM)
    roll(system, "app.kubernetes.io/component=operator", "--grace-period=0", "--force")
    roll(system, "app.kubernetes.io/component=node", "--grace-period=0", "--force")
    roll(system, "app.kubernetes.io/component=redis")
    time.sleep(6)
    system.run("rollout", "restart", "daemonset/cacheop-node")
    system.run("rollout", "status", "daemonset/cacheop-node", "--timeout=120s", seconds=130)


def test_workers_are_rolled_by_a_new_template(team: Kubectl, storming: Storm):
    before = workers(team)
    team.run("patch", "dataset", "mine", "--type=merge",
                  '--patch={"spec":{"worker":{"podAnnotations":{"new":"one"}}}}')  # fmt: skip
    team.until(
        "every worker is new",
        lambda: (
            (now := workers(team)).keys() == before.keys()
            and not set(now.values()) & set(before.values())
        ),
        seconds=120,
    )


def test_a_minute_without_the_api_server(
    team: Kubectl, storming: Storm, lasting_origin: Origin, control: Machine
):
    """The other two of the control plane end without it, as they do where they elect leaders."""
    daemons = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
    for daemon in daemons:
        control.stop(daemon)
    time.sleep(API_AWAY_SECONDS)
    for daemon in daemons:
        control.resume(daemon)
    team.until("the API server answers", lambda: team.get("dataset", "mine"))
    team.apply(datasets.dataset("later", lasting_origin))
    datasets.ready(team, "later", seconds=60)
