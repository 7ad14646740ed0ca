"""What users do first: apply a Dataset, then read it in every way there is."""

from __future__ import annotations

import datetime as dt
import time
from typing import TYPE_CHECKING

import pytest

from tests.cluster import datasets
from tests.cluster.datasets import claim_volume, inline_volume, read_by, reader
from tests.cluster.kubectl import KubectlError
from tests.cluster.pods import STRICT, pod

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cluster.kubectl import Kubectl, Object
    from tests.cluster.origin import Origin

pytestmark = pytest.mark.cluster
READY_SECONDS, MOUNT_SECONDS = 10.0, 2.0


def test_apply_then_read_through_the_claim(namespace: Kubectl, image: str, origin: Origin):
    began = time.monotonic()
    datasets.apply(namespace, "mine", origin)
    ready_seconds = time.monotonic() - began
    print(f"Ready after {ready_seconds:.1f} s")
    assert origin.proxy.objects_read() == 0  # applying downloads nothing but the listing
    (home,) = datasets.workers(namespace)
    namespace.apply(
        reader("first", image, claim_volume("mine"), node=home),
        pod("plain", image, ["python", "-c", ""], node=home),
    )
    assert datasets.printed(namespace, "first") == origin.digests()
    namespace.output_of("plain")
    mount_seconds = started(namespace, "first") - started(namespace, "plain")
    status = namespace.get("dataset", "mine")["status"]
    assert status["fileNum"] == len(origin.sizes)
    assert status["ufsTotalBytes"] == origin.total_bytes
    assert ready_seconds < READY_SECONDS
    assert mount_seconds <= MOUNT_SECONDS
    # Epoch 2, by users that nobody knows, through inline volumes: nothing from the origin.
    before = list(origin.proxy.requests)
    volumes = {
        "same": inline_volume("mine"),
        "whole": inline_volume("mine", waitFor="complete", mode="Native"),
    }
    pods = [reader(name, image, volume, user=424242, node=home) for name, volume in volumes.items()]
    namespace.apply(*pods)
    for name in volumes:
        assert datasets.printed(namespace, name) == origin.digests()
    assert origin.proxy.requests == before


def started(namespace: Kubectl, name: str) -> float:
    """When the pod's program began, in seconds of the node's clock."""
    (container,) = namespace.get("pod", name)["status"]["containerStatuses"]
    state = container["state"]
    text = (state.get("terminated") or state["running"])["startedAt"]
    return dt.datetime.fromisoformat(text).timestamp()


def test_fsspec_by_the_socket_in_a_volume(namespace: Kubectl, image: str, origin: Origin):
    """Complete files are opened where they lie; a file that is not there comes by the socket."""
    datasets.apply(namespace, "mine", origin)
    (home,) = datasets.workers(namespace)
    for name, requests in (("cold", len(origin.sizes)), ("warm", 0)):
        origin.proxy.requests.clear()
        command = ["python", "-c", datasets.READ_FSSPEC, "mine"]
        volume = inline_volume("mine", access="client")
        item = datasets.user(name, image, command, volume, user=7777, node=home)
        assert read_by(namespace, in_namespace(item, namespace)) == origin.digests()
        assert bool(origin.proxy.objects_read()) == bool(requests)


def test_fsspec_by_the_service(namespace: Kubectl, image: str, nodes: list[str], origin: Origin):
    """A pod without any volume: the token from the Secret, the worker of its own node."""
    datasets.apply(namespace, "mine", origin, allNodes=True)
    namespace.until(
        "each node has a worker",
        lambda: namespace.get("dataset", "mine")["status"]["readyReplicas"] == len(nodes),
    )
    uid = namespace.get("dataset", "mine")["metadata"]["uid"]
    address = namespace.get("service", "cacheop-mine")["spec"]["clusterIP"]
    token = {"secretKeyRef": {"name": "cacheop", "key": f"{uid}.client"}}
    for node in nodes:
        command = ["python", "-c", datasets.READ_FSSPEC, f"mine.{namespace.namespace}"]
        item = pod(f"by-service-{node}", image, command, node=node)
        datasets.with_environment(
            item, CACHEOP_ENDPOINT=f"{address}:7071", CACHEOP_TOKEN=token, TMPDIR="/dev/shm"
        )
        assert read_by(namespace, item) == origin.digests()
    # Without the token, or with another's: refused, and said why.
    bad = pod("no-token", image, ["python", "-c", datasets.READ_FSSPEC, "mine"])
    datasets.with_environment(bad, CACHEOP_ENDPOINT=f"{address}:7071", CACHEOP_TOKEN="0" * 64)
    namespace.apply(bad)
    with pytest.raises(AssertionError, match="token"):
        namespace.output_of("no-token")


def test_shared_with_one_namespace_and_no_other(
    make_namespace: Callable[..., Kubectl], image: str, origin: Origin
):
    home = make_namespace()
    guest = make_namespace(annotations={"cacheop.io/accept-from": home.namespace})
    stranger = make_namespace()
    home.apply(*STRICT)
    guest.apply(*STRICT)
    names = [guest.namespace, stranger.namespace]
    datasets.apply(home, "mine", origin, shareWith={"namespaces": names})
    found = read_by(guest, reader("guest", image, claim_volume("mine")))
    assert found == origin.digests()
    # Who did not accept gets nothing, and by inline attributes nobody reaches another's Dataset.
    with pytest.raises(KubectlError, match="not found"):
        stranger.get("pvc", "mine")
    for name, volume, words in (
        ("named", inline_volume("mine", namespace=home.namespace), "of its own namespace"),
        ("unnamed", inline_volume("mine"), "no worker"),
    ):
        stranger.apply(reader(name, image, volume))
        stranger.until(
            f"the pod {name} is told why",
            lambda name=name, words=words: words in stranger.events(name),
            seconds=90,
        )


def in_namespace(item: Object, namespace: Kubectl) -> Object:
    """With what a pod without a service account token must say itself."""
    return datasets.with_environment(
        item, CACHEOP_CACHE=datasets.WHERE, CACHEOP_NAMESPACE=namespace.namespace
    )
