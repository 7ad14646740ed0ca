from __future__ import annotations

import copy

import pytest

from cacheop.operator.facts import (
    PluginPod,
    UserPod,
    WorkerPod,
    fingerprint,
    read_node,
    read_pod,
)
from cacheop.operator.manifests.workers import node_terms

SYSTEM = "cacheop-system"
LABELS = {"app.kubernetes.io/name": "cacheop", "app.kubernetes.io/component": "worker"}


def pod(spec=None, status=None, labels=None, namespace="team", **metadata):
    return {
        "metadata": {"name": "p", "namespace": namespace, "uid": "u", "labels": labels, **metadata},
        "spec": spec or {},
        "status": status or {},
    }


def csi(driver="cacheop.io", **attributes):
    return {"name": "v", "csi": {"driver": driver, "volumeAttributes": attributes}}


def test_a_user_is_kept_by_its_claims_and_inline_volumes_only():
    volumes = [
        {"name": "x", "persistentVolumeClaim": {"claimName": "mine"}},
        csi(dataset="other"),
        csi("ebs.csi.aws.com", dataset="no"),
        {"name": "y", "emptyDir": {}},
    ]
    found = read_pod(pod({"volumes": volumes, "nodeName": "a"}), SYSTEM)
    assert found == UserPod("team", "p", "u", "a", ("mine",), ("other",))
    assert read_pod(pod({"volumes": volumes[3:]}), SYSTEM) is None
    assert read_pod(pod({"volumes": volumes}, {"phase": "Succeeded"}), SYSTEM) is None


def test_the_namespace_says_whose_claim_it_is():
    mine = UserPod("team", "p", "u", "a", ("mine",), ())
    assert mine.uses("team", "mine", frozenset())
    assert not mine.uses("other", "mine", frozenset())
    assert mine.uses("other", "mine", frozenset({"team"}))
    inline = UserPod("team", "p", "u", "a", (), ("mine",))
    assert inline.uses("team", "mine", frozenset())
    assert not inline.uses("other", "mine", frozenset({"team"})), "inline is of its own namespace"


def worker(**parts):
    return pod(labels={**LABELS, "cacheop.io/dataset": "mine"}, **parts)


def test_a_worker_that_waits_for_a_place_says_why_and_where():
    affinity = {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": node_terms("b")}
        }
    }
    conditions = [
        {"type": "PodScheduled", "status": "False", "message": "0/2 nodes: Insufficient memory"}
    ]
    found = read_pod(worker(spec={"affinity": affinity}, status={"conditions": conditions}), SYSTEM)
    assert isinstance(found, WorkerPod)
    assert found.node == "b"
    assert found.problem == "0/2 nodes: Insufficient memory"


@pytest.mark.parametrize(
    ("state", "problem"),
    [
        ({"waiting": {"reason": "ContainerCreating"}}, ""),
        ({"running": {}}, ""),
        ({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}},
         "ImagePullBackOff: no such image"),
    ],
)  # fmt: skip
def test_a_worker_that_does_not_start_says_why(state, problem):
    status = {"phase": "Pending", "containerStatuses": [{"state": state}]}
    found = read_pod(worker(spec={"nodeName": "a"}, status=status), SYSTEM)
    assert isinstance(found, WorkerPod)
    assert found.problem == problem


def test_a_crash_is_told_in_its_own_words():
    container = {
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"message": "spec.cache.tiers: no Memory tier yet"}},
    }
    found = read_pod(
        worker(spec={"nodeName": "a"}, status={"containerStatuses": [container]}), SYSTEM
    )
    assert isinstance(found, WorkerPod)
    assert found.problem == "CrashLoopBackOff: spec.cache.tiers: no Memory tier yet"


def test_a_node_plugin_is_one_in_our_namespace_only():
    labels = {**LABELS, "app.kubernetes.io/component": "node"}
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    there = pod({"nodeName": "a"}, ready, labels, namespace=SYSTEM)
    assert read_pod(there, SYSTEM) == PluginPod("p", "a", ready=True)
    assert read_pod(pod({"nodeName": "a"}, ready, labels), SYSTEM) is None


@pytest.mark.parametrize(
    ("spec", "leaving"),
    [
        ({}, ""),
        ({"unschedulable": True}, "it is cordoned"),
        ({"taints": [{"key": "gpu", "effect": "NoSchedule"}]}, ""),
        ({"taints": [{"key": "karpenter.sh/disrupted", "effect": "NoSchedule"}]},
         "Karpenter removes it"),
        ({"taints": [{"key": "ToBeDeletedByClusterAutoscaler", "value": "1"}]},
         "the cluster autoscaler removes it"),
    ],
)  # fmt: skip
def test_nodes_that_leave(spec, leaving):
    assert read_node({"metadata": {"name": "a"}, "spec": spec}).leaving == leaving


def test_a_fingerprint_sees_edits_and_nothing_else():
    before = {
        "kind": "Service",
        "metadata": {"name": "s", "resourceVersion": "1", "labels": {"a": "b"}},
        "spec": {"ports": [1]},
        "status": {"x": 1},
    }
    same = copy.deepcopy(before)
    same["metadata"] |= {"resourceVersion": "2", "managedFields": [1], "generation": 4}
    same["status"] = {"x": 2}
    assert fingerprint(same) == fingerprint(before)
    for edit in (
        lambda d: d["spec"].update(ports=[2]),
        lambda d: d["metadata"].pop("labels"),
        lambda d: d["metadata"].update(deletionTimestamp="now"),
        lambda d: d.update(data={}),
    ):
        other = copy.deepcopy(before)
        edit(other)
        assert fingerprint(other) != fingerprint(before)
