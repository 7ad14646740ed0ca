"""What a real API server makes of the CRDs: it refuses in words that people understand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster.operator.control_plane import ApiRefused
from tests.cluster.operator.lab import GROUP, dataset_document

if TYPE_CHECKING:
    from tests.cluster.operator.lab import Lab

pytestmark = pytest.mark.node
DATASETS = f"{GROUP}/namespaces/default/datasets?dryRun=All&fieldValidation=Strict"
LOADS = f"{GROUP}/namespaces/default/dataloads?dryRun=All&fieldValidation=Strict"


def mounts(*documents: dict[str, Any]) -> dict[str, Any]:
    return {"mounts": [*documents]}


def s3(path: str = "/", **fields: Any) -> dict[str, Any]:
    return {"mountPoint": "s3://bucket/data/", "path": path, **fields}


BAD: list[tuple[dict[str, Any], str]] = [
    (mounts(), "spec.mounts"),
    (mounts({"mountPoint": "/data"}), "must be a URL of a known kind"),
    (mounts({"mountPoint": "s4://bucket/"}), "must be a URL of a known kind"),
    (mounts({"mountPoint": "file:///data"}), "write pvc://claim/path"),
    (mounts({"mountPoint": "http://me:pw@host/"}), "put the password of mountPoint into a Secret"),
    (mounts(s3("/a"), s3("/a/b")), "no mount may lie within another"),
    (mounts(s3("/a"), s3("/a")), "Duplicate value"),
    (mounts(s3("a")), "spec.mounts[0].path"),
    ({"version": "newest"}, "spec.version"),
    ({"replicas": -1}, "spec.replicas"),
    ({"cache": {"tiers": [{"quota": "500GB"}]}}, "quota"),
    ({"cache": {"tiers": [{"medium": "Memory"}]}}, "a Memory tier needs a quota"),
    ({"cache": {"tiers": [{"high": 0.5, "low": 0.6}]}}, "high must be above low"),
    ({"cache": {"eviction": {"policy": "FIFO"}}}, 'supported values: "Auto", "LRU"'),
    ({"worker": {"idle": "30"}}, "spec.worker.idle"),
    ({"worker": {"podLabels": {"cacheop.io/x": "y"}}}, "are reserved for cacheop itself"),
    ({"mount": {"mode": "Fast"}}, "spec.mount.mode"),
    ({"replica": 2}, 'unknown field "spec.replica"'),
    (
        {
            "nodeAffinity": {
                "required": {
                    "nodeSelectorTerms": [
                        {"matchExpressions": [{"key": "gpu", "operator": "In"}]}
                    ]
                }
            }
        },
        "In and NotIn need values",
    ),
]  # fmt: skip


def says(lab: Lab, path: str, document: dict[str, Any]) -> str:
    with pytest.raises(ApiRefused) as refused:
        lab.api.create(path, document)
    return str(refused.value)


@pytest.mark.parametrize(("spec", "words"), BAD, ids=[words[:40] for _, words in BAD])
def test_a_bad_dataset_is_refused_with_a_reason(lab: Lab, spec: dict[str, Any], words: str) -> None:
    assert words in says(lab, DATASETS, dataset_document(**spec))


@pytest.mark.parametrize(
    ("name", "words"), [("with.dots", "metadata.name must be a DNS label"), ("UPPER", "name")]
)
def test_a_name_that_cannot_be_a_label_is_refused(lab: Lab, name: str, words: str) -> None:
    assert words in says(lab, DATASETS, dataset_document(name))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"policy": "Cron"}, "policy Cron needs a schedule"),
        ({"schedule": "0 3 * * *"}, "a schedule needs policy Cron"),
        ({"replicas": "some"}, "spec.replicas"),
        ({"dataset": "with.dots"}, "spec.dataset"),
    ],
)
def test_a_bad_load_is_refused(lab: Lab, spec: dict[str, Any], words: str) -> None:
    document = {
        "apiVersion": "cacheop.io/v1alpha1",
        "kind": "DataLoad",
        "metadata": {"name": "load"},
        "spec": {"dataset": "mine", **spec},
    }
    assert words in says(lab, LOADS, document)


def test_the_examples_are_taken(lab: Lab) -> None:
    full = {
        "refresh": {"interval": "10m"},
        "preload": [{"path": "/train"}],
        "shareWith": {"namespaces": ["nlp"]},
        "cache": {"tiers": [{"medium": "Disk", "quota": "500Gi"}], "floor": "50Gi", "ttl": "30d"},
        "prefetch": {"mode": "Auto", "maxOriginBytesPerSecond": "2Gi"},
        "deletion": {"whenMounted": "Wait", "timeout": "10m"},
        "tolerations": [{"operator": "Exists"}],
        "worker": {"idle": "30m", "resources": {"requests": {"cpu": "20m"}}},
    }
    found = lab.api.create(DATASETS, dataset_document(**full))
    assert found["spec"]["keepVersions"] == 2
    assert found["spec"]["cache"]["tiers"][0]["high"] == 0.95


def test_it_is_found_by_short_name_and_category(lab: Lab) -> None:
    resources = {r["name"]: r for r in lab.api.get(GROUP)["resources"]}
    assert resources["datasets"]["shortNames"] == ["cds"]
    assert resources["dataloads"]["shortNames"] == ["cdl"]
    assert resources["datasets"]["categories"] == ["cacheop"]
    assert {"datasets/status", "datasets/scale", "dataloads/status"} <= set(resources)


def columns(lab: Lab, plural: str) -> list[tuple[str, int]]:
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io"
    table = lab.api.call("GET", f"{GROUP}/namespaces/default/{plural}", accept=accept)
    return [(c["name"], c["priority"]) for c in table["columnDefinitions"]]


def test_kubectl_get_shows_what_matters(lab: Lab) -> None:
    found = columns(lab, "datasets")
    assert [name for name, priority in found if not priority] == [
        "Name", "READY", "CACHED %", "SIZE", "FILES", "WORKERS", "ORIGIN x", "AGE", "MESSAGE"
    ]  # fmt: skip
    assert [name for name, priority in found if priority] == ["PHASE", "VERSION", "MODE", "HIT %"]
    assert [n for n, priority in columns(lab, "dataloads") if not priority][:3] == [
        "Name", "DATASET", "PHASE"
    ]  # fmt: skip


def test_kubectl_scale_and_autoscalers_find_what_they_need(lab: Lab) -> None:
    namespace = lab.namespace()
    lab.dataset(namespace, replicas=1)
    path = lab.path(namespace)
    selector = "cacheop.io/dataset=mine"
    lab.api.merge(f"{path}/status", {"status": {"replicas": 3, "selector": selector}})
    scale = lab.api.get(f"{path}/scale")
    assert (scale["spec"]["replicas"], scale["status"]) == (
        1,
        {"replicas": 3, "selector": selector},
    )
    scale["spec"]["replicas"] = 2
    lab.api.call("PUT", f"{path}/scale", scale)
    assert lab.api.get(path)["spec"]["replicas"] == 2
    assert lab.status(namespace)["phase"] == "Pending", "defaults of status"


def test_the_dataset_of_a_load_cannot_be_changed(lab: Lab) -> None:
    namespace = lab.namespace()
    lab.load(namespace, "load")
    with pytest.raises(ApiRefused, match="dataset cannot be changed"):
        lab.api.merge(lab.path(namespace, "load", "dataloads"), {"spec": {"dataset": "other"}})
