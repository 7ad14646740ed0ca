"""The cluster that `./dev e2e` made or was given, as fixtures."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from examples.demo.server import S3Server
from tests.cluster.chart import Chart
from tests.cluster.kubectl import Kubectl
from tests.cluster.origin import SIZES, Origin, fill
from tests.cluster.pods import RESTRICTED
from tests.fakes.fault_proxy import FaultProxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_numbers = itertools.count()


@pytest.fixture(scope="session")
def image() -> str:
    """The name of the image with this tree's code, which the nodes have."""
    return os.environ.get("CACHEOP_IMAGE") or pytest.skip("no cluster: ./dev e2e runs these")


@pytest.fixture(scope="session")
def cluster(image: str) -> Kubectl:
    """The cluster as its administrator sees it."""
    return Kubectl()


@pytest.fixture(scope="session")
def nodes(cluster: Kubectl) -> list[str]:
    """Names of the nodes that take pods."""
    found = [
        item["metadata"]["name"]
        for item in cluster.list("nodes")
        if not item["spec"].get("unschedulable") and not item["spec"].get("taints")
    ]
    return sorted(found)


@pytest.fixture
def make_namespace(cluster: Kubectl) -> Iterator[Callable[..., Kubectl]]:
    """Makes a namespace that enforces PodSecurity `restricted`; it is gone after the test."""
    made: list[str] = []

    def make(labels: dict[str, str] | None = None) -> Kubectl:
        name = f"test-{os.getpid()}-{next(_numbers)}"
        made.append(name)
        cluster.apply(
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": name, "labels": {**RESTRICTED, **(labels or {})}},
            }
        )
        made_one = Kubectl(name)
        made_one.until(
            "it has a service account", lambda: made_one.get("serviceaccount", "default")
        )
        return made_one

    yield make
    for name in made:
        cluster.run("delete", "namespace", name, "--wait=false")
    for name in made:
        cluster.delete("namespace", name, seconds=90)


@pytest.fixture
def namespace(make_namespace: Callable[..., Kubectl]) -> Kubectl:
    """One such namespace."""
    return make_namespace()


@pytest.fixture(scope="session")
def chart(cluster: Kubectl, image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chart]:
    """The chart, installed; CRDs and what else `helm uninstall` keeps stay."""
    found = Chart(image, os.environ.get("CACHEOP_REDIS_IMAGE", ""), tmp_path_factory.mktemp("helm"))
    found.install()
    yield found
    found.uninstall()


@pytest.fixture(scope="session")
def bucket(s3: S3Server) -> str:
    """Holds origin.SIZES, and nobody changes it."""
    fill(s3, "standard", SIZES)
    return "standard"


@pytest.fixture
def origin(s3: S3Server, bucket: str, chart: Chart) -> Iterator[Origin]:
    """The standard files behind a proxy of the test's own."""
    with FaultProxy(s3.port, s3.host) as proxy:
        yield Origin(s3, proxy, bucket, SIZES)


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """A real S3 server that pods can reach. CACHEOP_LAB says at which address of this machine."""
    address = os.environ.get("CACHEOP_LAB")
    if not address:
        pytest.skip("CACHEOP_LAB=… which address of this machine do the cluster's pods reach?")
    directory = Path(tempfile.mkdtemp(prefix="cacheop-s3-"))
    try:
        with S3Server(directory, host=address) as server:
            yield server
    finally:
        shutil.rmtree(directory, ignore_errors=True)
