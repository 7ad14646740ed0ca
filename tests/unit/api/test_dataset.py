from __future__ import annotations

import contextlib
import pickle
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from cacheop.api.dataset import (
    DatasetSpec,
    EncryptOption,
    Tier,
    parse_dataset,
    read_dataset,
    to_document,
)
from cacheop.api.errors import SpecError
from cacheop.api.model import tree_of
from tests.fakes.documents import any_json, labels, names_below, right

# Shared machines are slow now and then; the strategies are deep.
PATIENT = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def document(spec: dict[str, Any] | None = None, **mount: Any) -> dict[str, Any]:
    return {
        "apiVersion": "cacheop.io/v1alpha1",
        "kind": "Dataset",
        "metadata": {"name": "demo"},
        "spec": {"mounts": [{"mountPoint": "s3://demo/", **mount}], **(spec or {})},
    }


def refusal(raw: Any) -> str:
    with pytest.raises(SpecError) as caught:
        parse_dataset(raw)
    assert caught.value.exit_code == 2
    return caught.value.message


def test_the_least_dataset_has_defaults_for_all_else() -> None:
    found = parse_dataset(document())
    assert (found.name, found.namespace) == ("demo", "default")
    spec = found.spec
    assert spec.mounts[0].path == "/"
    assert (spec.version, spec.keep_versions, spec.suspend) == ("", 2, False)
    assert spec.refresh.interval_seconds is None
    assert spec.cache.tiers == (Tier("Disk", None, 0.95, 0.85),)
    assert spec.mount.grace_seconds == 600
    assert spec.worker.idle_seconds == 1800


def test_every_field_of_the_design() -> None:
    raw = document(
        {
            "version": "0123456789abcdef",
            "keepVersions": 3,
            "refresh": {"interval": "10m", "requestedAt": "2026-01-01T00:00:00Z"},
            "replicas": 2,
            "allNodes": True,
            "placement": "Cluster",
            "preload": [{"path": "/train"}],
            "suspend": True,
            "shareWith": {"namespaces": ["nlp"]},
            "cache": {
                "tiers": [
                    {"medium": "Disk", "quota": "500Gi", "high": 0.9, "low": 0.5},
                    {"medium": "Memory", "quota": "16Gi"},
                ],
                "eviction": {"policy": "LRU"},
                "pin": True,
                "floor": "50Gi",
                "priority": 5,
                "ttl": "30d",
            },
            "prefetch": {"mode": "Plan", "headers": True, "maxOriginBytesPerSecond": "2Gi"},
            "mount": {"mode": "Fuse", "grace": "1m"},
            "deletion": {"whenMounted": "Force", "timeout": "5m"},
            "nodeAffinity": {
                "required": {
                    "nodeSelectorTerms": [
                        {"matchExpressions": [{"key": "gpu", "operator": "In", "values": ["a"]}]}
                    ]
                }
            },
            "tolerations": [{"operator": "Exists"}],
            "worker": {
                "idle": "1h",
                "maxUnavailable": 2,
                "resources": {"limits": {"memory": "1Gi"}, "requests": {"cpu": "20m"}},
                "serviceAccountName": "reader",
                "podLabels": {"team": "vision"},
                "podAnnotations": {"a.example/b": "c"},
                "imagePullSecrets": [{"name": "registry"}],
                "priorityClassName": "high",
            },
        },
        options={"endpoint_url": "http://127.0.0.1:1", "config_kwargs": {"retries": 3}},
        encryptOptions=[
            {"name": "key", "valueFrom": {"secretKeyRef": {"name": "s3", "key": "k.1"}}}
        ],
    )
    found = parse_dataset(raw)
    assert found.spec.mounts[0].encrypt_options == (EncryptOption("key", "s3", "k.1"),)
    assert found.spec.mounts[0].options["config_kwargs"] == {"retries": 3}
    assert [tier.quota_bytes for tier in found.spec.cache.tiers] == [500 << 30, 16 << 30]
    assert found.spec.cache.floor_bytes == 50 << 30
    assert found.spec.cache.ttl_seconds == 30 * 86400
    assert found.spec.prefetch.max_origin_bytes_per_second == 2 << 30
    assert found.spec.refresh.interval_seconds == 600
    written = to_document(found)
    assert parse_dataset(written) == found
    assert set(written["spec"]) == set(raw["spec"])
    assert set(raw["spec"]) == set(tree_of(DatasetSpec)), "a field is missing in the document above"
    assert pickle.loads(pickle.dumps(found)) == found


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (document({"cach": {}}), 'spec.cach: unknown field, did you mean "cache"?'),
        (
            document({"cache": {"tiers": [{"quotta": "1Gi"}]}}),
            'spec.cache.tiers[0].quotta: unknown field, did you mean "quota"?',
        ),
        (
            document({"cache": {"tiers": [{"quota": "500GB"}]}}),
            '"500GB" is not a size such as 500Gi or 1.5T, did you mean "500G"?',
        ),
        (document({"refresh": {"interval": 10}}), 'write "10s"'),
        (document({"replicas": "2"}), 'expected a whole number, found the text "2"'),
        (document({"replicas": True}), "expected a whole number, found true"),
        (document({"replicas": 1.5}), "expected a whole number"),
        (document({"replicas": -1}), "less than 0"),
        (document({"suspend": "no"}), "expected true or false"),
        (document({"version": 1234567890}), "put it in quotes"),
        (document({"version": "newest"}), "is not a version"),
        (document({"placement": "zone"}), 'did you mean "Zone"?'),
        (document({"prefetch": {"mode": False}}), 'such as "Off"'),
        (document({"cache": []}), "spec.cache: expected a map, found a list"),
        (document({"cache": {"tiers": []}}), "needs at least 1 entry"),
        (document({"cache": {"tiers": [{}, {}]}}), 'medium "Disk" is already at [0]'),
        (document({"cache": {"tiers": [{"high": 0.5, "low": 0.5}]}}), "must be above low"),
        (document({"cache": {"tiers": [{"medium": "Memory"}]}}), "a Memory tier needs one"),
        (
            document({"cache": {"tiers": [{"quota": "1Gi"}], "floor": "2Gi"}}),
            "spec.cache.floor: 2Gi is more than all quotas together (1Gi)",
        ),
        (document({"worker": {"podLabels": {"cacheop.io/x": "y"}}}), "reserved"),
        (document({"worker": {"podLabels": {"app.kubernetes.io/name": "y"}}}), "reserved"),
        (document({"preload": [{"path": "train"}]}), "is not a path"),
        (document({"mounts": []}), "needs at least 1 entry"),
        (document({"mounts": None}), "spec.mounts: is missing"),
        (document(path="/a/"), "is not a path"),
        (document(mountPoint="s4://x"), 'unknown storage "s4://", did you mean "s3"?'),
        (document(mountPoint="hhtps://x"), 'did you mean "https"?'),
        (document(mountPoint="/data"), "is not a URL"),
        (document(mountPoint="s3://"), "names no bucket"),
        (document(mountPoint="ftp://me:secret@host/"), "encryptOptions"),
        (document(options={"when": object()}), "expected JSON"),
        (document(options={"x": float("nan")}), "expected JSON"),
    ],
)
def test_one_mistake_is_one_line_that_says_what_to_do(raw: dict[str, Any], said: str) -> None:
    message = refusal(raw)
    assert said in message
    assert "\n" not in message


def test_a_password_is_not_repeated() -> None:
    assert "hunter2" not in refusal(document(mountPoint="ftp://me:hunter2@host/"))


def encrypted(name: str) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": "s3", "key": "k"}}}


def test_an_option_has_one_place() -> None:
    twice = document(encryptOptions=[encrypted("key"), encrypted("key")])
    assert 'encryptOptions[1]: name "key" is already at [0]' in refusal(twice)
    both = document(options={"key": "x"}, encryptOptions=[encrypted("key")])
    assert "encryptOptions[0].name" in refusal(both)


@pytest.mark.parametrize("key", [".", "..", "..x", "a/b", ""])
def test_a_secret_key_is_a_file_name(key: str) -> None:
    option = {"name": "key", "valueFrom": {"secretKeyRef": {"name": "s3", "key": key}}}
    assert "valueFrom.secretKeyRef.key" in refusal(document(encryptOptions=[option]))


@pytest.mark.parametrize(
    ("paths", "overlap"),
    [
        (["/", "/"], True),
        (["/", "/a"], True),
        (["/a", "/a"], True),
        (["/a/b", "/a"], True),
        (["/a", "/x", "/a/b/c"], True),
        (["/a", "/ab"], False),
        (["/a/b", "/a/c"], False),
    ],
)
def test_mounts_do_not_overlap(paths: list[str], overlap: bool) -> None:
    mounts = [{"mountPoint": f"s3://b/{i}/", "path": path} for i, path in enumerate(paths)]
    dataset, problems = read_dataset(document({"mounts": mounts}))
    assert (dataset is None) == overlap
    assert all(problem.path[:2] == ("spec", "mounts") for problem in problems)


@pytest.mark.parametrize("name", ["a.b", "A", "-a", "a" * 64, "", "a_b", "a\n"])
def test_a_name_is_a_dns_label(name: str) -> None:
    raw = document()
    raw["metadata"]["name"] = name
    assert refusal(raw).startswith("Dataset: metadata.name: ")


def test_all_mistakes_are_told_at_once() -> None:
    raw = document({"replicas": -1, "cache": {"tiers": [{"quotta": 1, "medium": "Dsk"}]}})
    raw["metadata"]["name"] = "a.b"
    raw["kin"] = raw.pop("kind")
    _, problems = read_dataset(raw)
    assert [str(problem).split(": ")[0] for problem in problems] == [
        "kin",
        "kind",
        "metadata.name",
        "spec.replicas",
        "spec.cache.tiers[0].quotta",
        "spec.cache.tiers[0].medium",
    ]


def test_null_is_absent_as_in_kubernetes() -> None:
    assert parse_dataset(document({"version": None, "cache": None})) == parse_dataset(document())


def test_a_model_shares_nothing_with_its_document() -> None:
    options: dict[str, Any] = {"client_kwargs": {"region_name": "x"}}
    found = parse_dataset(document(options=options))
    options["client_kwargs"]["region_name"] = "y"
    assert found.spec.mounts[0].options == {"client_kwargs": {"region_name": "x"}}


def test_metadata_and_status_of_kubernetes_are_no_mistakes() -> None:
    raw = document()
    raw["metadata"] |= {"uid": "x", "labels": {}, "managedFields": [{}], "namespace": "vision"}
    raw["status"] = {"phase": "Ready", "whatever": 1}
    assert parse_dataset(raw).namespace == "vision"


@PATIENT
@given(labels(), labels(), right(DatasetSpec))
def test_what_is_written_is_read_back(name: str, namespace: str, spec: dict[str, Any]) -> None:
    raw = {**document(), "metadata": {"name": name, "namespace": namespace}, "spec": spec}
    found, problems = read_dataset(raw)
    # Single fields are right; what remains are rules between them.
    text = ("above low", "all quotas", "is in options too", "already at", "Memory tier", "values")
    assert all(any(t in str(problem) for t in text) for problem in problems), problems
    assume(found is not None)
    assert found is not None
    assert parse_dataset(to_document(found)) == found


NAMES = names_below(DatasetSpec)


@PATIENT
@given(any_json(NAMES))
def test_any_json_is_a_dataset_or_a_spec_error(raw: Any) -> None:
    for attempt in (raw, {**document(), "spec": raw}, {**document(), "metadata": raw}):
        with contextlib.suppress(SpecError):
            parse_dataset(attempt)


@PATIENT
@given(right(DatasetSpec), st.data())
def test_any_value_anywhere_is_a_dataset_or_a_spec_error(
    spec: dict[str, Any], data: st.DataObject
) -> None:
    spec[data.draw(st.sampled_from(sorted(spec)))] = data.draw(any_json(NAMES))
    with contextlib.suppress(SpecError):
        parse_dataset({**document(), "spec": spec})


def test_the_parser_starts_quickly_and_brings_nothing_heavy() -> None:
    code = (
        "import sys, time; t = time.process_time()\n"
        "from cacheop.api.dataset import parse_dataset\n"
        f"parse_dataset({document()!r})\n"
        "print(time.process_time() - t)\n"
        "heavy = {'yaml', 'pyarrow', 'numpy', 'asyncio', 'fsspec', 'difflib', 'fractions'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    # What any such module has to import: tells how fast the machine is just now.
    bare = (
        "import sys, time; t = time.process_time()\n"
        "import dataclasses, re\n"
        "print(time.process_time() - t)"
    )
    least = least_bare = 1.0
    for _ in range(8):  # a busy machine needs more than one try
        seconds, heavy = printed(code)
        assert heavy == "[]"
        least = min(least, float(seconds))
        least_bare = min(least_bare, float(printed(bare)[0]))
        if least <= max(0.06, 4 * least_bare):
            return
    pytest.fail(
        f"{least} s of CPU to import the model and parse one Dataset, beside {least_bare} bare"
    )


def printed(code: str) -> list[str]:
    """The lines that a new interpreter prints."""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    return done.stdout.splitlines()


def test_a_misspelt_field_is_first_taken_for_one_that_is_missing():
    document = {"kind": "Dataset", "apiVersion": "cacheop.io/v1alpha1", "metadata": {"name": "a"}}
    with pytest.raises(SpecError, match='did you mean "mounts"') as caught:  # not "mount"
        parse_dataset({**document, "spec": {"mountz": [{"mountPoint": "s3://b/"}]}})
    assert "is missing" not in str(caught.value)
