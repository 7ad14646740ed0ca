"""What the doctor says of a cluster."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cacheop.api.schema import crds
from cacheop.cli.generate import describe
from cacheop.cli.kube.preflight import CRDS, ENFORCE, Facts, findings, numbers
from cacheop.cli.kube.rights import Purpose, rights
from cacheop.cli.probes import FAIL, OK, WARN

DOCUMENTS = {doc["metadata"]["name"]: doc for doc in crds(describe).values()}


def node(name: str, kernel: str = "6.9.3-1", kubelet: str = "v1.31.4", **labels: str) -> dict:
    info = {"kernelVersion": kernel, "kubeletVersion": kubelet, "operatingSystem": "linux"}
    return {"metadata": {"name": name, "labels": labels}, "status": {"nodeInfo": info}}


def workload(name: str, **status: int) -> dict:
    return {"metadata": {"name": name}, "status": status}


BARE = Facts(
    cluster="cluster lab (https://api)",
    namespace="vision",
    version="v1.31.4",
    nodes=[node("a"), node("b")],
    crds=dict.fromkeys(CRDS),
    rights=dict.fromkeys(rights("vision", "cacheop-system"), True),
)
INSTALLED = replace(
    BARE,
    crds=DOCUMENTS,
    driver={"metadata": {"name": "cacheop.io"}},
    operators=[workload("cacheop-operator", replicas=1, readyReplicas=1)],
    plugins=[workload("cacheop-node", desiredNumberScheduled=2, numberReady=2)],
    system={"metadata": {"name": "cacheop-system", "labels": {ENFORCE: "privileged"}}},
)


def levels(facts: Facts) -> dict[str, str]:
    return {finding.what: finding.level for finding in findings(facts)}


def found(facts: Facts, what: str):
    return next(finding for finding in findings(facts) if finding.what == what)


def test_a_good_cluster_before_and_after():
    assert set(levels(INSTALLED).values()) == {OK}
    bare = levels(BARE)
    assert {what for what, level in bare.items() if level == WARN} == set(CRDS)
    assert FAIL not in bare.values()
    assert "CSI driver" not in bare  # nobody installed it yet


@pytest.mark.parametrize(
    ("kernel", "level", "text"),
    [
        ("5.14.21-x", FAIL, "a (5.14.21-x)"),
        ("5.15.0-105-generic", WARN, "Passthrough"),
        ("6.8.12", WARN, "Passthrough"),
        ("6.9.0", OK, ""),
        ("6.10.1", OK, ""),
    ],
)
def test_kernels(kernel, level, text):
    finding = found(replace(BARE, nodes=[node("a", kernel), node("b")]), "kernels")
    assert finding.level == level
    assert text in finding.found + finding.costs


def test_many_old_nodes_are_counted():
    nodes = [node(f"n{k}", "4.18.0") for k in range(9)]
    assert found(replace(BARE, nodes=nodes), "kernels").found.endswith("and 4 more")


@pytest.mark.parametrize(
    ("one", "directory"),
    [
        (node("a", kubelet="v1.31.2+k0s"), "/var/lib/k0s/kubelet"),
        (node("a", **{"microk8s.io/cluster": "true"}), "/var/snap/microk8s/common/var/lib/kubelet"),
    ],
)
def test_the_kubelets_own_directory(one, directory):
    assert directory in found(replace(BARE, nodes=[one]), "kubelet").todo


def test_an_old_cluster_and_one_without_linux():
    assert found(replace(BARE, version="v1.26.9"), "Kubernetes").level == FAIL
    windows = node("w")
    windows["status"]["nodeInfo"]["operatingSystem"] = "windows"
    assert found(replace(BARE, nodes=[windows]), "nodes").level == FAIL
    assert numbers("v1.31.4+k3s1") == (1, 31)
    assert numbers("?") == (0, 0)


def test_missing_rights_are_named_by_what_they_are_for():
    def without(purpose: Purpose, facts: Facts) -> Facts:
        asked = {r: r.purpose is not purpose for r in facts.rights}
        return replace(facts, rights=asked)

    lacking = found(without(Purpose.INSTALL, BARE), "rights to install")
    assert lacking.level == FAIL
    assert "create customresourcedefinitions.apiextensions.k8s.io" in lacking.found
    assert found(without(Purpose.INSTALL, INSTALLED), "rights to install").level == OK
    assert found(without(Purpose.USE, INSTALLED), "rights to use Datasets").level == FAIL
    asking = found(without(Purpose.ASK, INSTALLED), "rights to top and evict")
    assert asking.level == WARN
    assert "create pods/portforward in vision" in asking.found
    assert "get secrets cacheop in vision" in asking.found


def test_a_namespace_that_refuses_the_node_plugin():
    system = {"metadata": {"labels": {ENFORCE: "baseline"}}}
    finding = found(replace(BARE, system=system), "PodSecurity of cacheop-system")
    assert finding.level == FAIL
    assert f"{ENFORCE}=privileged" in finding.todo


def test_crds_of_another_age():
    name = "datasets.cacheop.io"
    version = DOCUMENTS[name]["spec"]["versions"][0]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    fields = dict(spec["properties"])

    def with_fields(properties: dict) -> Facts:
        schema = {"openAPIV3Schema": {"properties": {"spec": {"properties": properties}}}}
        crd = {"spec": {"versions": [{"name": "v1alpha1", "served": True, "schema": schema}]}}
        return replace(INSTALLED, crds=DOCUMENTS | {name: crd})

    assert found(with_fields(fields), name).level == OK
    older = found(with_fields({k: v for k, v in fields.items() if k != "prefetch"}), name)
    assert "older than this command: no prefetch" in older.found
    newer = found(with_fields(fields | {"compress": {}}), name)
    assert "newer than this command: has compress" in newer.found
    other = {"spec": {"versions": [{"name": "v1", "served": True}]}}
    assert found(replace(INSTALLED, crds=DOCUMENTS | {name: other}), name).level == FAIL


def test_what_is_installed_and_does_not_run():
    assert found(replace(INSTALLED, driver=None), "CSI driver").level == FAIL
    assert found(replace(INSTALLED, operators=()), "operator").level == FAIL
    some = workload("cacheop-node", desiredNumberScheduled=3, numberReady=2)
    assert found(replace(INSTALLED, plugins=[some]), "node plugins").level == WARN
    none = workload("cacheop-node", desiredNumberScheduled=3)
    assert found(replace(INSTALLED, plugins=[none]), "node plugins").level == FAIL


def test_what_may_not_be_read_is_said_and_not_guessed():
    fields = ("nodes", "crds", "driver", "operators", "plugins", "system")
    facts = replace(INSTALLED, refused=dict.fromkeys(fields, "nodes is forbidden"))
    said = levels(facts)
    assert FAIL not in said.values()
    assert said["nodes"] == said["operator"] == said["PodSecurity of cacheop-system"] == WARN
