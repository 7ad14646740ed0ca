"""A Dataset of a cluster in words and JSON."""

from __future__ import annotations

from cacheop.cli.kube import view

DATASET = {
    "metadata": {"name": "imagenet", "namespace": "vision", "uid": "u", "generation": 3},
    "spec": {"mounts": [], "replicas": 2, "shareWith": {"namespaces": ["nlp"]}},
    "status": {
        "phase": "Ready",
        "version": "1f2e3d4c",
        "mode": "Passthrough",
        "fileNum": 1000,
        "ufsTotalBytes": 4 << 30,
        "replicas": 3,
        "readyReplicas": 2,
        "cacheStates": {
            "cachedBytes": 1 << 30,
            "cachedPercentage": "25.0%",
            "hitRatio": "98.3%",
            "originBytes": 1 << 30,
            "originRatio": "0.25",
        },
        "conditions": [
            {"type": "Ready", "status": "True", "reason": "Ready", "message": ""},
            {
                "type": "OriginReachable",
                "status": "False",
                "reason": "Refused",
                "message": "403: mend the Secret",
            },
        ],
        "nodes": [
            {"name": "b", "cachedBytes": 1 << 20, "complete": False},
            {"name": "a", "cachedBytes": 1 << 30, "complete": True},
        ],
        "observedGeneration": 3,
    },
}


def test_a_summary_has_the_words_of_the_local_status():
    found = view.summary(DATASET, "prod", "https://api")
    assert found["hit_ratio"] == 0.983
    assert found["cached_percentage"] == 25.0
    assert found["origin_ratio"] == 0.25
    assert (found["cluster"], found["phase"], found["workers"]) == ("prod", "Ready", 3)
    assert found["is_current"]
    assert view.headline(found) == (
        "Ready: 25.0 % cached, hit ratio 98.3 %, 1.0 GiB read from the origin (0.25 x the Dataset)"
    )
    lines = view.detail_lines(found)
    assert "version 1f2e3d4c: 1,000 files, 4.0 GiB; mount mode Passthrough" in lines
    assert any("shared with nlp" in line for line in lines)
    assert view.condition_rows(found)[0][:3] == ("OriginReachable", "False", "Refused")
    assert [row[0] for row in view.node_rows(found)] == ["a", "b"]
    assert len(view.overview_row(found)) == len(view.OVERVIEW_HEAD)


def test_a_dataset_that_nobody_looked_at_yet():
    found = view.summary({"metadata": {"name": "x", "generation": 1}}, "prod", "https://api")
    assert view.headline(found) == "Pending"
    assert view.detail_lines(found)[-1].startswith("the operator has not looked")
    assert view.condition_rows(found) == view.node_rows(found) == []
    assert len(view.overview_row(found)) == len(view.OVERVIEW_HEAD)


def test_the_affinity_finds_the_workers_from_any_namespace():
    (term,) = view.affinity("imagenet", "vision")["podAffinity"][
        "preferredDuringSchedulingIgnoredDuringExecution"
    ]
    assert term["podAffinityTerm"] == {
        "topologyKey": "kubernetes.io/hostname",
        "namespaces": ["vision"],
        "labelSelector": {
            "matchLabels": {
                "app.kubernetes.io/name": "cacheop",
                "app.kubernetes.io/component": "worker",
                "cacheop.io/dataset": "imagenet",
            }
        },
    }


def test_a_loads_status_is_read_as_the_protocols():
    event = view.load_event(
        {"phase": "Loading", "bytes": 1, "bytesTotal": 4, "rate": "1.5Gi/s", "eta": "3m"}
    )
    assert event["rate_bytes_per_second"] == 3 << 29
    assert view.load_words(event).endswith("1.5 GiB/s, 3m to go")
    assert view.load_words(view.load_event({})) == "pending"
    assert view.rate("") is None
