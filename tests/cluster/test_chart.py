"""What an administrator does: `helm test`, and `helm upgrade` while pods read."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.cluster import datasets, storm
from tests.cluster.datasets import claim_volume, inline_volume, workers
from tests.cluster.lab import images
from tests.cluster.lab.places import KUBECONFIG
from tests.cluster.storm import storm_pod

if TYPE_CHECKING:
    from tests.cluster.chart import Chart
    from tests.cluster.kubectl import Kubectl
    from tests.cluster.origin import Origin

pytestmark = pytest.mark.cluster


def test_helm_test_reads_a_dataset(chart: Chart):
    assert "all right" in chart.test()


def test_upgraded_under_readers(
    namespace: Kubectl, image: str, nodes: list[str], origin: Origin, chart: Chart
):
    """Another image and another template: everything is new, and nobody noticed."""
    datasets.apply(namespace, "mine", origin, allNodes=True)
    namespace.until("each node has a worker", lambda: set(workers(namespace)) == set(nodes))
    pods = [
        storm_pod(f"{kind}-{node}", image, origin, volume, node=node)
        for node in nodes
        for kind, volume in (
            ("claim", claim_volume("mine")),
            ("inline", inline_volume("mine", mode="Fuse")),
        )
    ]
    reading = storm.begin(namespace, *pods)
    before = workers(namespace)
    changes = {"worker.podAnnotations.test": "upgraded", "node.podAnnotations.test": "upgraded"}
    if os.environ.get("KUBECONFIG") == str(KUBECONFIG):
        again = image + "-again"
        images.again(image, again)
        changes["image.tag"] = again.rpartition(":")[2]
    chart.install(changes)
    namespace.until(
        "every worker is new",
        lambda: (
            (now := workers(namespace)).keys() == before.keys()
            and not set(now.values()) & set(before.values())
        ),
        seconds=120,
    )
    reading.check()
    reading.end()
