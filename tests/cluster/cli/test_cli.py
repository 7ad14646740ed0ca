"""The command line against a real API server: our CRDs' rules, rights, what is written."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.fakes.command_line import CommandLine, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

control_plane = pytest.importorskip("tests.cluster.operator.control_plane")
pytestmark = [pytest.mark.node, pytest.mark.timeout(180)]

TREE = Path(__file__).parents[3]
GROUP = "/apis/cacheop.io/v1alpha1"
DATASETS = f"{GROUP}/namespaces/default/datasets"
SPEC = {"mounts": [{"mountPoint": "s3://bucket/data/"}]}


@pytest.fixture(scope="module")
def plane() -> Iterator[Any]:
    """Without our CRDs: the first test installs them."""
    if control_plane.missing():
        pytest.skip(f"not built here: {', '.join(control_plane.missing())}")
    with control_plane.ControlPlane() as found:
        yield found


@pytest.fixture
def cli(plane: Any, tmp_path: Path) -> Iterator[CommandLine]:
    """An administrator's."""
    found = CommandLine(tmp_path)
    (tmp_path / "no-kubeconfig").write_bytes(plane.kubeconfig(plane.admin).read_bytes())
    yield found
    found.close()


@pytest.fixture(scope="module")
def crds(plane: Any) -> None:
    for file in sorted((TREE / "crds").glob("*.yaml")):
        document = yaml.safe_load(file.read_text())
        plane.admin.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", document)

    def served() -> bool:
        try:
            return all(plane.admin.get(f"{GROUP}/{p}") for p in ("datasets", "dataloads"))
        except (control_plane.ApiRefused, ValueError):  # "404 page not found" is no JSON
            return False

    wait_until(served)


def set_status(plane: Any, path: str, **status: Any) -> None:
    plane.admin.merge(f"{path}/status", {"status": status})


def test_before_installing(plane: Any, cli: CommandLine):
    info = {"kernelVersion": "5.15.0-1", "operatingSystem": "linux", "kubeletVersion": "v1.31.0"}
    blank = ("architecture", "bootID", "containerRuntimeVersion", "kubeProxyVersion", "machineID")
    info |= dict.fromkeys((*blank, "osImage", "systemUUID"), "")
    plane.admin.create("/api/v1/nodes", {"metadata": {"name": "a"}})
    set_status(plane, "/api/v1/nodes/a", nodeInfo=info)
    done = cli("doctor", "--cluster")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARN  kernels: a (5.15.0-1)" in done.stdout
    assert "WARN  datasets.cacheop.io: not installed" in done.stdout
    assert "OK    rights to install: all there" in done.stdout
    assert "cacheop is not installed there" in cli.fails(4, "status")


def test_who_may_nothing(plane: Any, cli: CommandLine, crds: None):
    kubeconfig = plane.kubeconfig(plane.operator)
    assert "cannot list resource" in cli.fails(1, "status", "--kubeconfig", kubeconfig)
    done = cli("doctor", "--kubeconfig", kubeconfig)
    assert done.returncode == 1
    lacking = "missing: get datasets.cacheop.io in default"
    assert f"FAIL  rights to use Datasets: {lacking}" in done.stdout
    assert "WARN  nodes: " in done.stdout


def test_crds_of_this_tree_are_known(cli: CommandLine, crds: None):
    done = cli("doctor", "--cluster")
    assert "OK    datasets.cacheop.io: v1alpha1" in done.stdout
    assert "OK    dataloads.cacheop.io: v1alpha1" in done.stdout
    assert "FAIL  CSI driver" in done.stdout


def test_status_and_refresh(plane: Any, cli: CommandLine, crds: None):
    path = f"{DATASETS}/demo"
    plane.admin.create(DATASETS, dataset("demo"))
    done = cli("status", "demo")
    assert done.returncode == 3
    assert done.stdout.startswith("Pending\n")
    set_status(plane, path, phase="Ready", version="1f2e3d4c", ufsTotalBytes=10, fileNum=1)
    assert cli.json("status", "demo")["phase"] == "Ready"
    assert cli("status").returncode == 0
    done = cli("refresh", "demo")
    assert done.returncode == 0, done.stderr
    assert plane.admin.get(path)["spec"]["refresh"]["requestedAt"].endswith("Z")
    (by,) = {m["manager"] for m in plane.admin.get(path)["metadata"]["managedFields"]
             if "requestedAt" in json.dumps(m)}  # fmt: skip
    assert by == "cacheop-cli"


def test_load(plane: Any, cli: CommandLine, crds: None):
    plane.admin.create(DATASETS, dataset("loaded"))
    loads = f"{GROUP}/namespaces/default/dataloads"
    done = {"phase": "Complete", "bytes": 7, "bytesTotal": 7, "files": 1, "filesTotal": 1}

    def operator() -> None:
        wait_until(lambda: plane.admin.items(loads))
        set_status(plane, f"{loads}/{plane.admin.items(loads)[0]['metadata']['name']}", **done)

    thread = threading.Thread(target=operator)
    thread.start()
    told = cli.json("load", "loaded", "--path", "/train", "--replicas", "2")
    thread.join(30)
    assert (told["phase"], told["bytes"]) == ("Complete", 7)
    spec = plane.admin.get(f"{loads}/{told['dataload']}")["spec"]
    assert (spec["dataset"], spec["target"], spec["replicas"]) == (
        *("loaded", [{"path": "/train"}], 2),
    )
    # What the CRD refuses is a user's mistake, told in the API server's words.
    assert "spec.version" in cli.fails(2, "load", "loaded", "--version", "not hex")


def test_what_convert_makes_is_taken(plane: Any, cli: CommandLine, crds: None, tmp_path: Path):
    from tests.fakes.fluid import ALLUXIO_S3, JINDO_OSS, THIN_MINIO

    for number, text in enumerate((ALLUXIO_S3, JINDO_OSS, THIN_MINIO)):
        source = tmp_path / f"{number}.yaml"
        source.write_text(text.replace("namespace: vision", "namespace: default"))
        for document in cli.json("convert", source)["documents"]:
            plural = document["kind"].lower() + "s"
            plane.admin.create(f"{GROUP}/namespaces/default/{plural}", document)


def dataset(name: str) -> dict[str, Any]:
    head = {"apiVersion": "cacheop.io/v1alpha1", "kind": "Dataset", "metadata": {"name": name}}
    return head | {"spec": SPEC}
