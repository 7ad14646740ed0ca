"""What ends, and what must not touch each other."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.cluster import datasets, storm
from tests.cluster.chart import CACHE_DIR, SYSTEM
from tests.cluster.datasets import claim_volume, dataset, inline_volume, read_by, reader, workers
from tests.cluster.kubectl import Kubectl, KubectlError
from tests.cluster.origin import fill
from tests.cluster.pods import pod
from tests.cluster.storm import storm_pod

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cluster.origin import Origin

pytestmark = pytest.mark.cluster
SIZES = {"same/name.bin": 120_000, "b.bin": 10}
LIST = "import json, os, sys; print(json.dumps(sorted(os.listdir(sys.argv[1]))))"


def kept(node: str, namespace: str) -> list[str]:
    """Names of the Datasets of a namespace that have a directory on a node."""
    system = Kubectl(SYSTEM)
    plugins = system.list("pods", "app.kubernetes.io/component=node")
    (name,) = [p["metadata"]["name"] for p in plugins if p["spec"]["nodeName"] == node]
    listed = json.loads(system.execute(name, "python", "-c", LIST, CACHE_DIR))
    if namespace not in listed:
        return []
    found: list[str] = json.loads(
        system.execute(name, "python", "-c", LIST, f"{CACHE_DIR}/{namespace}")
    )
    return found


@pytest.fixture(scope="module")
def team(make_lasting_namespace: Callable[..., Kubectl]) -> Kubectl:
    """The namespace of two Datasets, of which one is deleted."""
    return make_lasting_namespace()


def test_deleted_while_mounted(team: Kubectl, image: str, nodes: list[str], lasting_origin: Origin):
    """It says for whom it waits, and readers read on; then it goes. The last test looks on."""
    origin = lasting_origin
    team.apply(origin.secret(), dataset("gone", origin, allNodes=True),
               dataset("stays", origin, allNodes=True))  # fmt: skip
    for name in ("gone", "stays"):
        datasets.ready(team, name)
        team.until("on all nodes", lambda name=name: len(workers(team, name)) == len(nodes))
    reading = storm.begin(team, storm_pod("storm", image, origin, claim_volume("gone")))
    team.run("delete", "dataset", "gone", "--wait=false")
    team.until("it says for whom it waits", lambda: "storm" in message(team, "gone"))
    reading.check()
    reading.end()
    team.delete("pod", "storm")
    team.delete("dataset", "gone")


def message(namespace: Kubectl, name: str) -> str:
    """Of its condition Ready."""
    found = (namespace.get("dataset", name).get("status") or {}).get("conditions") or []
    return next((str(one["message"]) for one in found if one["type"] == "Ready"), "")


def test_wrong_credentials_then_right_ones(namespace: Kubectl, image: str, origin: Origin):
    namespace.apply(origin.secret(right=False), dataset("mine", origin))
    namespace.until(
        "it says what is wrong",
        lambda: (said := message(namespace, "mine")) and "s3://" in said and "credentials" in said,
    )
    print(message(namespace, "mine"))
    before = {p["metadata"]["uid"]: restarts(p) for p in namespace.list("pods")}
    namespace.apply(origin.secret())
    datasets.ready(namespace, "mine", seconds=120)
    assert read_by(namespace, reader("reads", image, claim_volume("mine"))) == origin.digests()
    after = {p["metadata"]["uid"]: restarts(p) for p in namespace.list("pods")}
    assert before.items() <= after.items(), "the worker was started again"


def restarts(item: dict[str, object]) -> int:
    """Of a pod's container."""
    return int(item["status"]["containerStatuses"][0]["restartCount"])  # type: ignore[index]


def test_the_same_name_in_two_namespaces(
    make_namespace: Callable[..., Kubectl], image: str, nodes: list[str], origin: Origin
):
    """Not by claim, attributes, port, socket, directory or Redis do they see each other's bytes."""
    teams = [make_namespace(), make_namespace()]
    origins = [
        replace(origin, bucket=team.namespace, sizes=SIZES, salt=team.namespace) for team in teams
    ]
    for team, own in zip(teams, origins, strict=True):
        fill(own.s3, own.bucket, own.sizes, own.salt)
        datasets.apply(team, "mine", own, allNodes=True)
    volumes = {"claim": claim_volume("mine"), "inline": inline_volume("mine")}
    for team in teams:
        team.apply(
            *(
                reader(f"{kind}-{node}", image, volume, node=node)
                for node in nodes
                for kind, volume in volumes.items()
            )
        )
    for team, own in zip(teams, origins, strict=True):
        for node in nodes:
            for kind in volumes:
                assert datasets.printed(team, f"{kind}-{node}") == own.digests()
    first, second = teams
    uid = first.get("dataset", "mine")["metadata"]["uid"]
    # Another's token opens no port, another's password no keys.
    address = second.get("service", "cacheop-mine")["spec"]["clusterIP"]
    item = pod("thief", image, ["python", "-c", datasets.READ_FSSPEC, f"mine.{second.namespace}"])
    token = {"secretKeyRef": {"name": "cacheop", "key": f"{uid}.client"}}
    first.apply(datasets.with_environment(item, CACHEOP_ENDPOINT=f"{address}:7071",
                                          CACHEOP_TOKEN=token))  # fmt: skip
    with pytest.raises(AssertionError, match="token"):
        first.output_of("thief")
    # A directory asked for by name and uid is one of the pod's own namespace, always.
    other = second.get("dataset", "mine")["metadata"]["uid"]
    csi = {"driver": "cacheop.io", "volumeAttributes": {"cache": "mine", "uid": other}}
    mounts = [{"name": "data", "mountPath": "/data"}]
    look = ["python", "-c", LIST, "/data"]
    first.apply(pod("look", image, look, volumes=[{"name": "data", "csi": csi}], mounts=mounts,
                    user=65532))  # fmt: skip
    assert not {"data", "manifest", "chunks"} & set(json.loads(first.output_of("look")))


def test_what_is_refused_and_what_is_taken(namespace: Kubectl, origin: Origin):
    bad = dataset("bad", origin)
    bad["spec"]["mounts"] = [{"mountPoint": "file:///etc/"}]
    with pytest.raises(KubectlError, match="write pvc://claim/path"):
        namespace.apply(bad)
    # The name of the claim is somebody else's: told, and not touched.
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "taken"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "none",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    namespace.apply(claim)
    uid = namespace.get("pvc", "taken")["metadata"]["uid"]
    namespace.apply(origin.secret(), dataset("taken", origin))
    namespace.until("it says that", lambda: "taken" in message(namespace, "taken"))
    found = namespace.get("pvc", "taken")
    assert (found["metadata"]["uid"], found["spec"]["storageClassName"]) == (uid, "none")


def test_a_load_acts_in_its_own_namespace(make_namespace: Callable[..., Kubectl], origin: Origin):
    home, other = make_namespace(), make_namespace()
    datasets.apply(home, "mine", origin)
    load = {"apiVersion": "cacheop.io/v1alpha1", "kind": "DataLoad",
            "metadata": {"name": "load"}, "spec": {"dataset": "mine"}}  # fmt: skip
    other.apply(load)
    other.until("it says what it lacks", lambda: "mine" in json.dumps(
        other.get("dataload", "load").get("status") or {}))  # fmt: skip
    assert other.get("dataload", "load")["status"]["phase"] in ("Pending", "Failed")
    assert origin.proxy.objects_read() == 0


def test_a_namespace_is_deleted_with_a_reader_in_it(
    make_namespace: Callable[..., Kubectl], image: str, origin: Origin
):
    doomed = make_namespace()
    datasets.apply(doomed, "mine", origin)
    storm.begin(doomed, storm_pod("storm", image, origin, claim_volume("mine")))
    uid = doomed.get("dataset", "mine")["metadata"]["uid"]
    doomed.run("delete", "namespace", doomed.namespace, "--wait=false")
    doomed.until("its volume goes", lambda: not volumes_of(doomed, uid))


def volumes_of(namespace: Kubectl, uid: str) -> list[str]:
    """The PersistentVolumes of a Dataset."""
    names = [item["metadata"]["name"] for item in namespace.list("pv")]
    return [name for name in names if uid in name]


def test_directories_of_deleted_datasets_go_and_no_others(
    team: Kubectl, image: str, nodes: list[str], lasting_origin: Origin
):
    """Two minutes after they were made at the earliest: lists that the kubelet shows may be old."""
    for node in nodes:
        team.until(f"its directory on {node} is gone",
                   lambda node=node: kept(node, team.namespace) == ["stays"],
                   seconds=150)  # fmt: skip
    found = read_by(team, reader("other", image, claim_volume("stays")))
    assert found == lasting_origin.digests()
