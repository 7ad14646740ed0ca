"""top and evict through the API server's port-forward, over real WebSocket frames."""

from __future__ import annotations

import base64
import copy
import json

import pytest

from tests.fakes.tcp_worker import TcpWorker
from tests.unit.cli.kube.test_verbs import PATH
from tests.unit.cli.kube.test_view import DATASET

TOKEN = "c0ntrol"
LABELS = {
    "app.kubernetes.io/name": "cacheop",
    "app.kubernetes.io/component": "worker",
    "cacheop.io/dataset": "imagenet",
}
PODS = "/api/v1/namespaces/vision/pods"
SECRET = "/api/v1/namespaces/vision/secrets/cacheop"


def answers(node: str) -> dict:
    status = {
        "node": node,
        "phase": "Ready",
        "version": "1f2e3d4c",
        "pid": 1,
        "bytes_total": 100,
        "cached_bytes": 40,
        "cached_percentage": 40.0,
        "origin_bytes": 50,
        "read_sources": {"local": 5, "peer": 0, "origin": 1},
        "hit_ratio": 0.5,
        "read_bytes": 10,
    }
    return {
        "status": lambda _: status,
        "hot": lambda _: {"files": [{"path": "a.jpg", "reads": 3, "cached": True}]},
        # A long answer goes in several frames.
        "evict": lambda _: {"bytes": 7, "files": 1, "pinned_files": 2, "why": "x" * 100_000},
    }


@pytest.fixture
def workers(api):
    """Two workers, a pod that ends and one of another Dataset."""
    api.put(PATH, **copy.deepcopy(DATASET))
    uid = api.objects[PATH]["metadata"]["uid"]
    data = {f"{uid}.control": base64.b64encode(TOKEN.encode()).decode()}
    api.put(SECRET, data=data)
    with TcpWorker(TOKEN, answers("n1")) as one, TcpWorker(TOKEN, answers("n2")) as two:
        for number, worker in enumerate((one, two), 1):
            path = f"{PODS}/cacheop-imagenet-{number}"
            spec, status = {"nodeName": f"n{number}"}, {"phase": "Running"}
            api.put(path, metadata={"labels": LABELS}, spec=spec, status=status)
            api.ports[path, 7071] = worker.address
        ending = {"labels": LABELS, "deletionTimestamp": "2026"}
        api.put(f"{PODS}/ending", metadata=ending, spec={"nodeName": "n3"}, status=status)
        other = {"labels": LABELS | {"cacheop.io/dataset": "other"}}
        api.put(f"{PODS}/other", metadata=other, spec={"nodeName": "n4"}, status=status)
        yield one, two


def test_top_asks_every_worker_over_one_line_each(kubectl_user, workers):
    done = kubectl_user("top", "imagenet", "--count", "2", "-o", "json")
    assert done.returncode == 0, done.stderr
    snapshots = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(snapshots) == 2
    assert [n["node"] for n in snapshots[1]["nodes"]] == ["n1", "n2"]
    assert {n["state"] for n in snapshots[1]["nodes"]} == {"ready"}
    assert snapshots[1]["hot"] == [{"path": "a.jpg", "reads": 6, "cached_nodes": 2}]
    assert [worker.connections for worker in workers] == [1, 1]
    text = kubectl_user("top", "imagenet")
    assert "in cluster lab" in text.stderr
    assert "a.jpg" in text.stdout


def test_a_worker_that_hangs_up_is_gone_and_the_others_are_shown(kubectl_user, api, workers):
    _, two = workers
    two.close()
    done = kubectl_user("top", "imagenet", "-o", "json")
    assert done.returncode == 0, done.stderr
    states = {n["node"]: n["state"] for n in json.loads(done.stdout)["nodes"]}
    assert states == {"n1": "ready", "n2": "gone"}


def test_evict_asks_first_and_reaches_every_worker(kubectl_user, workers):
    assert "in cluster lab" in kubectl_user.fails(2, "evict", "imagenet")
    done = kubectl_user("evict", "imagenet", "--path", "/train/", "--yes")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("evicted 2 files, 14 B\nkept 2 files: xxx")
    assert [w.asked for w in workers] == [[{"op": "evict", "paths": ["train"]}]] * 2
    answer = kubectl_user.json("evict", "imagenet", "--yes")
    assert [n["node"] for n in answer["nodes"]] == ["n1", "n2"]
    assert answer["cluster"] == "lab"


def test_each_missing_right_says_which(kubectl_user, api, workers):
    path = f"{PODS}/cacheop-imagenet-1/portforward"
    api.forbidden.add(path)
    assert "pods/portforward" in kubectl_user.fails(1, "evict", "imagenet", "--yes")
    api.forbidden = {SECRET}
    assert "you may not" in kubectl_user.fails(1, "top", "imagenet")
    api.forbidden = set()
    api.objects[SECRET]["data"] = {}
    assert "no token of this Dataset" in kubectl_user.fails(4, "top", "imagenet")


def test_a_wrong_token_is_no_answer(kubectl_user, api, workers):
    uid = api.objects[PATH]["metadata"]["uid"]
    api.objects[SECRET]["data"][f"{uid}.control"] = base64.b64encode(b"other").decode()
    kubectl_user.fails(3, "evict", "imagenet", "--yes")
    assert [worker.asked for worker in workers] == [[], []]


def test_without_a_worker_there_is_nothing_to_evict(kubectl_user, api, workers):
    for number in (1, 2):
        del api.objects[f"{PODS}/cacheop-imagenet-{number}"]
    assert "no worker of vision/imagenet" in kubectl_user.fails(3, "evict", "imagenet", "--yes")
