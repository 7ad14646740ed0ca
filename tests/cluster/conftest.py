"""The cluster that `./dev e2e` made or was given, as fixtures."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from examples.demo.server import S3Server
from tests.cluster.chart import SYSTEM, Chart
from tests.cluster.kubectl import Kubectl
from tests.cluster.lab.network import CONTROL
from tests.cluster.lab.places import KUBECONFIG
from tests.cluster.origin import SIZES, Origin, fill
from tests.cluster.pods import RESTRICTED
from tests.fakes.fault_proxy import FaultProxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cluster.lab.machines import Machine

_numbers = itertools.count()
TEST_SECONDS = 240
GONE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Leaving:
    """Owns namespaces until they are gone."""

    cluster: Kubectl
    names: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        """Delete it, later."""
        self.cluster.run("delete", "namespace", name, "--wait=false", "--ignore-not-found")
        self.names.append(name)

    def wait(self) -> None:
        """Until all are gone."""
        while self.names:
            self.cluster.delete("namespace", self.names[-1], seconds=GONE_SECONDS)
            self.names.pop()


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


@pytest.fixture(scope="session")
def leaving(cluster: Kubectl) -> Iterator[Leaving]:
    """Namespaces on their way out: Kubernetes takes 15 s for each, and no test waits for that."""
    found = Leaving(cluster)
    yield found
    found.wait()


@contextlib.contextmanager
def _namespaces(leaving: Leaving) -> Iterator[Callable[..., Kubectl]]:
    """Makes namespaces that enforce PodSecurity `restricted`, and lets them go at the end."""
    made: list[str] = []

    def make(annotations: dict[str, str] | None = None) -> Kubectl:
        name = f"test-{os.getpid()}-{next(_numbers)}"
        made.append(name)
        metadata = {"name": name, "labels": RESTRICTED, "annotations": annotations or {}}
        leaving.cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        made_one = Kubectl(name)
        made_one.until(
            "it has a service account", lambda: made_one.get("serviceaccount", "default")
        )
        return made_one

    yield make
    for name in made:
        leaving.add(name)


@pytest.fixture
def make_namespace(leaving: Leaving) -> Iterator[Callable[..., Kubectl]]:
    """Makes a namespace; it goes after the test."""
    with _namespaces(leaving) as make:
        yield make


@pytest.fixture(scope="module")
def make_lasting_namespace(leaving: Leaving) -> Iterator[Callable[..., Kubectl]]:
    """Makes a namespace; it goes after the module."""
    with _namespaces(leaving) as make:
        yield make


@pytest.fixture
def namespace(make_namespace: Callable[..., Kubectl]) -> Kubectl:
    """One such namespace."""
    return make_namespace()


@pytest.fixture(scope="session")
def chart(
    image: str, leaving: Leaving, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Chart]:
    """The chart, installed; CRDs and what else `helm uninstall` keeps stay."""
    found = Chart(image, os.environ.get("CACHEOP_REDIS_IMAGE", ""), tmp_path_factory.mktemp("helm"))
    found.install()
    # One that was uninstalled a moment ago may not have been able to give its Lease back.
    system = Kubectl(SYSTEM)
    system.until("the operator is at work", lambda: _is_active(system))
    yield found
    leaving.wait()  # the operator ends the finalizers of their Datasets
    found.uninstall()


@pytest.fixture
def control() -> Iterator[Machine]:
    """The lab's control machine, whose daemons a test may stop."""
    if os.environ.get("KUBECONFIG") != str(KUBECONFIG):
        pytest.skip("not the lab: daemons of another cluster are not stopped")
    yield CONTROL
    for daemon in ("kube-apiserver", "kube-controller-manager", "kube-scheduler"):
        CONTROL.resume(daemon)


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


@pytest.fixture(scope="module")
def lasting_origin(s3: S3Server, bucket: str, chart: Chart) -> Iterator[Origin]:
    """The same for a whole module."""
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


def _is_active(system: Kubectl) -> bool:
    holder = system.get("lease", "cacheop-operator")["spec"].get("holderIdentity")
    pods = system.list("pods", "app.kubernetes.io/component=operator")
    return holder in {pod["metadata"]["name"] for pod in pods}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each test's own time is bounded; what fixtures wait for has deadlines of its own."""
    for item in items:
        if item.get_closest_marker("cluster"):
            item.add_marker(pytest.mark.timeout(TEST_SECONDS, func_only=True))
