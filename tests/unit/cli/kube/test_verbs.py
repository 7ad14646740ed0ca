"""The verbs against an API server: what is asked of it, what is said, exit codes."""

from __future__ import annotations

import copy
import json

import pytest
import yaml

from cacheop.api.dataload import parse_dataload
from cacheop.cli.kube.access import path_of, refusal
from cacheop.cli.kube.verbs import data_load
from cacheop.cli.kube.workers import running_pods
from tests.unit.cli.kube.test_view import DATASET

PATH = path_of("datasets", "vision", "imagenet")


@pytest.fixture
def dataset(api):
    document = copy.deepcopy(DATASET)
    return api.put(PATH, **document)


def test_status_says_which_cluster_and_how_to_come_near(kubectl_user, api, dataset):
    done = kubectl_user("status", "imagenet")
    assert done.returncode == 0, done.stderr
    assert f"Dataset vision/imagenet in cluster lab ({api.url})" in done.stderr
    assert "Ready: 25.0 % cached" in done.stdout
    assert "403: mend the Secret" in done.stdout
    affinity = yaml.safe_load(done.stdout.partition("in the pod's spec:\n")[2])["affinity"]
    assert "podAffinity" in affinity
    found = kubectl_user.json("status")  # the only one of the namespace
    assert (found["cluster"], found["dataset"]) == ("lab", "imagenet")
    assert found["affinity"] == affinity


def test_several_are_a_table(kubectl_user, api, dataset):
    api.put(path_of("datasets", "nlp", "text"), status={"phase": "Pending"})
    done = kubectl_user("status", "--all")
    assert done.returncode == 3  # not all are Ready
    assert "2 Datasets in cluster lab" in done.stderr
    assert "nlp/text" in done.stdout
    assert kubectl_user("status", "text.nlp").returncode == 3
    assert [d["dataset"] for d in json.loads(kubectl_user("status", "-a", "-o", "json").stdout)[
        "datasets"
    ]] == ["text", "imagenet"]  # fmt: skip


def test_what_runs_here_comes_first_unless_a_cluster_is_named(kubectl_user, api, dataset):
    kubectl_user.fake("imagenet", "vision")
    assert "on this machine" in kubectl_user("status", "imagenet").stderr
    named = kubectl_user("status", "imagenet", "--context", "lab")
    assert "in cluster lab" in named.stderr
    assert "no context other" in kubectl_user.fails(2, "status", "--context", "other")


def test_errors_say_where(kubectl_user, api, dataset):
    assert "cluster lab" in kubectl_user.fails(4, "status", "none")
    assert "no Dataset in namespace nlp of cluster lab" in kubectl_user.fails(
        4, "status", "-n", "nlp"
    )
    api.forbidden.add(PATH)
    assert "you may not" in kubectl_user.fails(1, "status", "imagenet")
    assert "-n says nlp" in kubectl_user.fails(2, "status", "vision/imagenet", "-n", "nlp")
    text = (kubectl_user.tmp_path / "no-kubeconfig").read_text()
    (kubectl_user.tmp_path / "no-kubeconfig").write_text(text.replace(api.url, "http://[::1]:9"))
    assert "does not answer" in kubectl_user.fails(3, "status", "imagenet")


def test_refresh_asks_and_waits_for_the_operator(kubectl_user, api, dataset):
    def operator(path, document):
        wanted = document["spec"]["refresh"]["requestedAt"]
        document["status"] |= {"refreshedAt": wanted, "version": "aaaabbbb", "fileNum": 1001}

    api.changed = operator
    done = kubectl_user("refresh", "imagenet")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "version aaaabbbb, a new version: 1,001 files, 4.0 GiB\n"
    answer = kubectl_user.json("refresh", "imagenet")
    assert (answer["changed"], answer["done"], answer["cluster"]) == (False, True, "lab")
    assert answer["requested_at"] == api.objects[PATH]["spec"]["refresh"]["requestedAt"]


def test_refresh_does_not_wait_for_workers_that_are_not_there(kubectl_user, api, dataset):
    dataset["status"]["replicas"] = 0
    done = kubectl_user("refresh", "imagenet")
    assert done.returncode == 0
    assert "no worker runs now" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ({"phase": "Complete", "bytes": 10, "bytesTotal": 10, "files": 2, "filesTotal": 2}, 0),
        ({"phase": "Failed", "failed": [{"path": "/train/x", "error": "403"}]}, 1),
        ({"phase": "Cancelled"}, 1),
    ],
)
def test_load_makes_a_dataload_and_follows_it(kubectl_user, api, dataset, status, code):
    made = []

    def operator(path, document):
        made.append(document)
        document["status"] = status

    api.changed = operator
    done = kubectl_user("load", "imagenet", "--path", "train/", "--replicas", "all")
    assert done.returncode == code, done.stderr
    assert made[0]["spec"] == {
        "dataset": "imagenet",
        "ttlSecondsAfterFinished": 3600,
        "target": [{"path": "/train"}],
        "replicas": "all",
    }
    assert status["phase"].lower() in done.stdout
    assert made[0]["metadata"]["name"] in done.stderr
    for failure in status.get("failed", ()):
        assert f"{failure['path']}: 403" in done.stdout
    answer = json.loads(kubectl_user("load", "imagenet", "-o", "json").stdout)
    assert answer["phase"] == status["phase"]
    assert answer["dataload"].startswith("imagenet-load-")


def test_a_loads_document_is_one_of_ours():
    document = data_load("i" * 63, "vision", ["/a/", "b"], "1f2e3d4c", 2)
    assert len(document["metadata"]["generateName"]) + 5 <= 63
    document["metadata"] = {"name": "x", "namespace": "vision"}
    assert parse_dataload(document).spec.replicas == 2


def test_doctor_looks_at_a_cluster(kubectl_user, api):
    node = {"nodeInfo": {"kernelVersion": "5.15.0", "operatingSystem": "linux"}}
    api.put("/api/v1/nodes/a", status=node)
    api.allowed = lambda right: right["resource"] != "secrets"
    done = kubectl_user("doctor", "--cluster")
    assert done.returncode == 1  # installing takes Secrets
    assert "FAIL  rights to install: missing: create secrets in cacheop-system" in done.stdout
    assert "WARN  rights to top and evict: missing: get secrets cacheop in vision" in done.stdout
    assert "WARN  kernels: a (5.15.0)" in done.stdout
    assert "WARN  datasets.cacheop.io: not installed" in done.stdout
    assert f"cluster lab ({api.url}), namespace vision" in done.stderr
    api.allowed = lambda _: True
    answer = kubectl_user.json("doctor", "--context", "lab", "-n", "nlp")
    assert answer["ok"]


def test_without_a_kubeconfig_it_says_what_to_do(cacheop):
    assert "--kubeconfig" in cacheop.fails(2, "doctor", "--cluster")
    assert "no Dataset runs on this machine" in cacheop.fails(3, "status")


@pytest.mark.parametrize(
    ("status", "body", "kind", "text"),
    [
        (404, b"404 page not found\n", "NotFoundError", "cacheop is not installed there"),
        (404, b'{"message": "x not found", "details": {"kind": "datasets"}}', "NotFoundError", "x"),
        (403, b'{"message": "forbidden: no"}', "CacheopError", "forbidden: no"),
        (401, b"{}", "CacheopError", "who you are"),
        (422, b'{"message": "spec is wrong"}', "UserError", "spec is wrong"),
        (500, b"\xff", "CacheopError", "HTTP 500"),
    ],
)
def test_refusals(status, body, kind, text):
    error = refusal(status, body, f"GET {PATH}", "cluster lab")
    assert type(error).__name__ == kind
    assert text in str(error)
    assert "cluster lab" in str(error)


def test_only_pods_that_run_are_asked():
    def pod(name, phase="Running", node="n", **metadata):
        return {
            "metadata": {"name": name, **metadata},
            "spec": {"nodeName": node} if node else {},
            "status": {"phase": phase},
        }

    pods = [
        pod("a", node="n1"),
        pod("b", "Pending", "n2"),
        pod("c", node=""),
        pod("d", node="n3", deletionTimestamp="2026"),
    ]
    assert running_pods(pods) == {"n1": "a"}
