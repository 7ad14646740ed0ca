"""Workers come where pods are and go where none is; what only one of them has is handed over."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from cacheop.api.quantity import parse_quantity
from tests.cluster import datasets, storm
from tests.cluster.datasets import claim_volume, read_by, reader, workers
from tests.cluster.kubectl import is_ready
from tests.cluster.lab.network import NODES
from tests.cluster.pods import pod
from tests.cluster.storm import storm_pod

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.kubectl import Kubectl, Object
    from tests.cluster.lab.machines import Machine
    from tests.cluster.origin import Origin
    from tests.cluster.storm import Storm

pytestmark = pytest.mark.cluster
TAINT = {"key": "test.cacheop.io/dedicated", "value": "gpu", "effect": "NoSchedule"}
WORKER_SECONDS, EVENT_SECONDS = 5.0, 10.0
SLACK_SECONDS = 3.0  # of a busy machine
LEFT_BYTES = 200 << 20  # room for the pod that reads, none for a worker
QUICK = {"worker": {"idle": "1s"}}


@pytest.fixture
def homes(namespace: Kubectl, nodes: list[str], origin: Origin) -> tuple[str, str]:
    """A Dataset with one worker: its node, and another node."""
    datasets.apply(namespace, "mine", origin, placement="Cluster", **QUICK)
    (home,) = workers(namespace)
    return home, next(node for node in nodes if node != home)


@pytest.fixture
def tainted(homes: tuple[str, str], namespace: Kubectl) -> Iterator[str]:
    """The node without a worker, with a taint."""
    name = homes[1]
    text = f"{TAINT['key']}={TAINT['value']}:{TAINT['effect']}"
    namespace.run("taint", "node", name, text)
    yield name
    namespace.run("taint", "node", name, f"{text}-")


def tolerant(item: Object) -> Object:
    """The pod, tolerating the taint."""
    toleration = {"operator": "Equal", **TAINT}
    item["spec"]["tolerations"] = [toleration]
    return item


def scheduled(namespace: Kubectl, name: str) -> float:
    """Wait until the pod has its node; now."""
    namespace.until(f"{name} is scheduled", lambda: namespace.get("pod", name)["spec"]["nodeName"])
    return time.monotonic()


def test_a_pod_on_another_node_gets_a_worker_there(
    namespace: Kubectl, image: str, homes: tuple[str, str], tainted: str, origin: Origin
):
    """On a tainted one; on one that is full an event says so, and it comes when there is room."""
    blocker = tolerant(pod("blocker", image, ["sleep", "3600"], node=tainted))
    blocker["spec"]["containers"][0]["resources"] = {
        "requests": {"memory": str(free_bytes(namespace, tainted) - LEFT_BYTES)}
    }
    namespace.apply(blocker)
    namespace.ready("blocker")
    namespace.apply(tolerant(reader("waiting", image, claim_volume("mine"), node=tainted)))
    began = scheduled(namespace, "waiting")
    namespace.until(
        "its event says that the node is full",
        lambda: "Insufficient memory" in namespace.events("waiting"),
        seconds=EVENT_SECONDS + SLACK_SECONDS,
    )
    print(f"told after {time.monotonic() - began:.1f} s")
    assert is_ready(namespace.get("pod", "blocker")), "it was preempted"
    namespace.delete("pod", "blocker")
    began = time.monotonic()
    namespace.until("there is a worker", lambda: tainted in workers(namespace),
                    seconds=WORKER_SECONDS + SLACK_SECONDS)  # fmt: skip
    print(f"a worker {time.monotonic() - began:.1f} s after there was room")
    assert datasets.printed(namespace, "waiting") == origin.digests()
    # Without hindrance: to the mount in a few seconds; then it goes when it is not used.
    namespace.until("the second worker goes", lambda: set(workers(namespace)) == {homes[0]})
    namespace.apply(tolerant(reader("second", image, claim_volume("mine"), node=tainted)))
    began = scheduled(namespace, "second")
    namespace.until("there is a worker", lambda: tainted in workers(namespace),
                    seconds=WORKER_SECONDS + SLACK_SECONDS)  # fmt: skip
    print(f"a worker {time.monotonic() - began:.1f} s after the pod was scheduled")
    assert datasets.printed(namespace, "second") == origin.digests()
    assert origin.proxy.object_bytes <= 1.02 * origin.total_bytes


def free_bytes(namespace: Kubectl, node: str) -> int:
    """Memory that the scheduler has left there, once the pods that end now are gone."""
    total = parse_quantity(namespace.get("node", node)["status"]["allocatable"]["memory"])
    used = sum(
        parse_quantity(container["resources"].get("requests", {}).get("memory", "0"))
        for one in namespace.all_pods(f"spec.nodeName={node}")
        if one["status"]["phase"] in ("Pending", "Running")
        and not one["metadata"].get("deletionTimestamp")
        for container in one["spec"]["containers"]
    )
    return int(total - used)


@pytest.fixture
def loaded(namespace: Kubectl, image: str, homes: tuple[str, str], origin: Origin) -> Storm:
    """Now both nodes have half of everything; a reader of a little on the first."""
    namespace.run("scale", "dataset/mine", "--replicas=2")
    namespace.until("both have one", lambda: set(workers(namespace)) == set(homes))
    assert datasets.load(namespace, "mine")["status"]["percentage"] == 100
    assert origin.proxy.object_bytes == origin.total_bytes
    item = storm_pod("storm", image, origin.some(), claim_volume("mine"), node=homes[0])
    return storm.begin(namespace, item)


def test_scaled_up_and_down_under_a_reader(
    namespace: Kubectl, image: str, homes: tuple[str, str], origin: Origin, loaded: Storm
):
    """Who leaves hands over first: nothing comes from the origin again."""
    for replicas in (1, 2, 1):
        namespace.run("scale", "dataset/mine", f"--replicas={replicas}")
        wanted = set(homes[:replicas])
        namespace.until(
            f"{replicas} are left", lambda wanted=wanted: set(workers(namespace)) == wanted
        )
        loaded.check()
    found = read_by(namespace, reader("all", image, claim_volume("mine"), node=homes[0]))
    assert found == origin.digests()
    loaded.end()
    assert origin.proxy.object_bytes <= 1.02 * origin.total_bytes


def test_a_quota_that_is_exceeded_is_told_to_the_pod(
    namespace: Kubectl, image: str, origin: Origin
):
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "one-pod"},
        "spec": {"hard": {"pods": "1"}},
    }
    namespace.apply(quota)
    namespace.until("it holds", lambda: namespace.get("resourcequota", "one-pod").get("status"))
    namespace.apply(origin.secret(), datasets.dataset("mine", origin, replicas=0))
    namespace.until("there is a claim", lambda: namespace.get("pvc", "mine"))
    namespace.apply(reader("waiting", image, claim_volume("mine")))
    scheduled(namespace, "waiting")
    namespace.until(
        "its event says so",
        lambda: "exceeded quota" in namespace.events("waiting"),
        seconds=EVENT_SECONDS + SLACK_SECONDS,
    )
    namespace.delete("resourcequota", "one-pod")
    assert datasets.printed(namespace, "waiting") == origin.digests()


def test_idle_to_zero_and_back(namespace: Kubectl, image: str, nodes: list[str], origin: Origin):
    namespace.apply(origin.secret(), datasets.dataset("mine", origin, replicas=0, **QUICK))
    first = reader("first", image, claim_volume("mine"), node=nodes[1])
    assert read_by(namespace, first) == origin.digests()
    namespace.until(
        "no worker is left", lambda: not namespace.list("pods", "cacheop.io/dataset=mine")
    )
    assert is_ready(namespace.get("dataset", "mine"))
    origin.proxy.requests.clear()
    second = reader("second", image, claim_volume("mine"), node=nodes[1])
    assert read_by(namespace, second) == origin.digests()
    assert origin.proxy.objects_read() == 0, "it found its cache again"


def test_a_node_is_cordoned_and_deleted(
    namespace: Kubectl,
    image: str,
    homes: tuple[str, str],
    origin: Origin,
    loaded: Storm,
    control: Machine,
):
    """It hands over first; then nobody misses it."""
    gone = next(one for one in NODES if one.name == homes[1])
    try:
        namespace.run("cordon", gone.name)
        namespace.until("the other has all", lambda: has_all(namespace, homes[0]), seconds=60)
        gone.machine.stop("kubelet")
        namespace.delete("node", gone.name)
        time.sleep(5)
        loaded.check()
        found = read_by(namespace, reader("all", image, claim_volume("mine"), node=homes[0]))
        assert found == origin.digests()
        loaded.end()
    finally:
        gone.machine.resume("kubelet")
        namespace.until("the node is back", lambda: is_ready(namespace.get("node", gone.name)))
        namespace.run("uncordon", gone.name)
    assert origin.proxy.object_bytes <= 1.02 * origin.total_bytes


def has_all(namespace: Kubectl, node: str) -> bool:
    """Whether the worker there says that it holds all of the Dataset."""
    status = namespace.get("dataset", "mine")["status"]
    return any(one["name"] == node and one.get("complete") for one in status.get("nodes") or ())
