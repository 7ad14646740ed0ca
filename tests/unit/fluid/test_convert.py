"""Files as Fluid's users have them: what becomes of each, and that our own parser takes it."""

from __future__ import annotations

from textwrap import dedent

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cache_worker.origins.address import parse_address
from cache_worker.origins.options import translate
from cacheop.api.dataload import parse_dataload
from cacheop.api.dataset import parse_dataset
from cacheop.api.errors import SpecError
from cacheop.fluid.convert import convert
from cacheop.fluid.notes import Level
from tests.fakes.fluid import ALLUXIO_S3, GCS, JINDO_OSS, JUICEFS, NESTED, REFERENCE, THIN_MINIO


def of(text: str):
    return convert(list(yaml.safe_load_all(dedent(text))))


def spec_of(text: str) -> dict:
    return of(text).documents[0].document["spec"]


def told(found, level: Level) -> list[str]:
    return [str(note) for note in found.all_notes if note.level is level]


def test_alluxio_over_s3_becomes_one_dataset():
    found = of(ALLUXIO_S3)
    dataset, load = (made.document for made in found.documents)
    assert dataset == {
        "apiVersion": "cacheop.io/v1alpha1",
        "kind": "Dataset",
        "metadata": {"name": "imagenet", "namespace": "vision", "labels": {"team": "vision"}},
        "spec": {
            "mounts": [
                {
                    "mountPoint": "s3://pictures/imagenet",
                    "path": "/train",
                    "options": {
                        "endpoint_url": "http://minio.storage:9000",
                        "client_kwargs": {"region_name": "eu-west-1"},
                        "config_kwargs": {"s3": {"addressing_style": "path"}},
                    },
                    "encryptOptions": [
                        {"name": n, "valueFrom": {"secretKeyRef": {"name": "s3-keys", "key": k}}}
                        for n, k in (("key", "id"), ("secret", "secret"))
                    ],
                }
            ],
            "refresh": {"interval": "10m"},
            "replicas": 4,
            "cache": {
                "tiers": [{"quota": "516Gi", "low": 0.7}],
                "pin": True,
            },
            "nodeAffinity": {
                "required": {
                    "nodeSelectorTerms": [
                        {
                            "matchExpressions": [
                                {"key": "gpu", "operator": "In", "values": ["true"]},
                                {"key": "disk", "operator": "In", "values": ["nvme"]},
                            ]
                        }
                    ]
                }
            },
            "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
            "worker": {"podLabels": {"app": "cache"}},
        },
    }
    assert load == {
        "apiVersion": "cacheop.io/v1alpha1",
        "kind": "DataLoad",
        "metadata": {"name": "warm", "namespace": "vision"},
        "spec": {
            "dataset": "imagenet",
            "target": [{"path": "/train"}, {"path": "/train/labels.csv"}],
            "replicas": 2,
            "policy": "Cron",
            "schedule": "0 3 * * *",
            "ttlSecondsAfterFinished": 600,
        },
    }
    assert told(found, Level.TODO) == []


def test_everything_without_an_equal_is_told():
    found = of(ALLUXIO_S3)
    said = "\n".join(map(str, found.all_notes))
    for word in (
        *("inherit.acl", "block.size.bytes", "jvmOptions", "worker.resources", "spec.fuse"),
        *(
            "data.fluid.io/cache",
            "loadMetadata",
            "sync.interval",
            "node.cacheDirs",
            "/mnt/ssd0",
            "page cache",
        ),
        *("UTC", "spec.resources", "replicas is one number"),
    ):
        assert word in said, word
    assert "last-applied" not in said


def test_jindo_over_oss_goes_through_its_s3_interface():
    assert spec_of(JINDO_OSS) == {
        "mounts": [
            {
                "mountPoint": "s3://test-bucket/data",
                "options": {
                    "endpoint_url": "https://oss-cn-beijing-internal.aliyuncs.com",
                    "client_kwargs": {"region_name": "oss-cn-beijing"},
                    "config_kwargs": {"s3": {"addressing_style": "virtual"}},
                },
                "encryptOptions": [
                    {
                        "name": n,
                        "valueFrom": {"secretKeyRef": {"name": "mysecret", "key": f"fs.oss.{k}"}},
                    }
                    for n, k in (("key", "accessKeyId"), ("secret", "accessKeySecret"))
                ],
            }
        ],
        "replicas": 2,
        "cache": {"tiers": [{"quota": "100G", "high": 0.99, "low": 0.8}]},
    }
    assert "S3 interface" in "".join(told(of(JINDO_OSS), Level.CHANGED))


def test_juicefs_wants_a_gateway():
    found = of(JUICEFS)
    spec = found.documents[0].document["spec"]
    assert spec["mounts"][0]["mountPoint"] == "s3://pics/demo/"
    assert "encryptOptions" not in spec["mounts"][0]
    # `low` is another thing there.
    assert spec["cache"]["tiers"] == [{"quota": "40Gi"}]
    assert "juicefs gateway" in "".join(told(found, Level.TODO))
    assert "metaurl" in "".join(told(found, Level.DROPPED))


def test_a_juicefs_quota_without_unit_is_not_taken_for_bytes():
    found = of(JUICEFS.replace("40Gi", "40960"))
    assert "cache" not in found.documents[0].document["spec"]  # one Disk tier: the default
    assert any("40960" in text for text in told(found, Level.TODO))


def test_minio_by_a_thin_runtime_is_plain_s3():
    found = of(THIN_MINIO)
    mount = found.documents[0].document["spec"]["mounts"][0]
    assert mount["mountPoint"] == "s3://my-first-bucket"
    assert mount["options"]["endpoint_url"] == "http://minio:9000"
    assert [o["name"] for o in mount["encryptOptions"]] == ["key", "secret"]
    assert "path" not in mount
    assert told(found, Level.TODO) == []


@pytest.mark.parametrize("point", ["nas.example:/export", "nfs://nas/export", "cephfs://x/y"])
def test_what_no_library_reads_wants_a_claim(point):
    found = of(THIN_MINIO.replace("minio://my-first-bucket", point))
    assert found.documents[0].document["spec"]["mounts"][0]["mountPoint"] == "pvc://CLAIM/"
    assert any("PersistentVolumeClaim" in text for text in told(found, Level.TODO))


def test_googles_key_file_is_followed_to_its_secret():
    (entry,) = spec_of(GCS)["mounts"][0]["encryptOptions"]
    assert entry == {
        "name": "token",
        "valueFrom": {"secretKeyRef": {"name": "gcscreds", "key": "application-credentials.json"}},
    }
    alone = of(GCS.partition("---\n")[2])
    assert "encryptOptions" not in alone.documents[0].document["spec"]["mounts"][0]
    assert any("name: token" in text for text in told(alone, Level.TODO))


def test_azure_names_its_account_in_an_option():
    found = of("""
        apiVersion: data.fluid.io/v1alpha1
        kind: Dataset
        metadata: {name: blobs}
        spec:
          mounts:
          - mountPoint: wasbs://photos@store1.blob.core.windows.net/a
            name: a
            encryptOptions:
            - name: fs.azure.account.key.store1.blob.core.windows.net
              valueFrom: {secretKeyRef: {name: az, key: k}}
        """)
    (mount,) = found.documents[0].document["spec"]["mounts"]
    assert mount["mountPoint"] == "abfs://photos@store1.dfs.core.windows.net/a"
    assert mount["options"] == {"account_name": "store1"}
    assert [o["name"] for o in mount["encryptOptions"]] == ["account_key"]


def test_a_reference_becomes_sharing():
    (made,) = (found := of(REFERENCE)).documents
    assert made.document["metadata"]["name"] == "phy"
    assert made.document["spec"]["shareWith"] == {"namespaces": ["ref"]}
    assert "namespace" not in made.document["metadata"]  # kubectl -n goes on working
    (todo,) = told(found, Level.TODO)
    assert "kubectl annotate namespace ref cacheop.io/accept-from=default" in todo
    assert "subPath" in todo


def test_a_reference_to_what_is_not_there_says_what_to_add():
    (todo,) = told(of(REFERENCE.partition("---\n")[2]), Level.TODO)
    assert "spec.shareWith.namespaces" in todo


def test_mounts_come_to_lie_beside_each_other():
    found = of(NESTED)
    assert [m["path"] for m in found.documents[0].document["spec"]["mounts"]] == [
        "/hbase",
        "/spark",
    ]
    assert any("/hbase now" in text for text in told(found, Level.CHANGED))


def test_a_secret_in_plain_text_is_told_without_its_value():
    keys = "{aws.secretKey: hunter2, aws.accessKeyId: me}"
    mirror = '{mountPoint: "https://mirror.example/apache/spark/", name: spark}'
    plain = f"{{mountPoint: 's3://b/p', name: s, options: {keys}}}"
    found = of(NESTED.replace(mirror, plain))
    assert found.documents[0].document["spec"]["mounts"][1]["options"] == {
        "key": "me",
        "secret": "hunter2",
    }
    assert any("plain text" in text for text in told(found, Level.CHANGED))
    assert not any("hunter2" in str(note) for note in found.all_notes)


def test_options_in_the_wrong_place_are_found():
    """As one of Fluid's own examples has them."""
    text = ALLUXIO_S3.replace("      encryptOptions:\n", "        encryptOptions:\n")
    assert [o["name"] for o in spec_of(text)["mounts"][0]["encryptOptions"]] == ["key", "secret"]


def test_storage_words_of_the_runtime_hold_for_every_mount():
    text = NESTED.replace("https://mirror.example/apache", "s3://b").rstrip() + dedent("""
        ---
        apiVersion: data.fluid.io/v1alpha1
        kind: AlluxioRuntime
        metadata: {name: two}
        spec: {properties: {alluxio.underfs.s3.endpoint: "http://s3:9000", alluxio.x: "1"}}
        """)
    found = of(text)
    mounts = found.documents[0].document["spec"]["mounts"]
    assert [m["options"] for m in mounts] == [{"endpoint_url": "http://s3:9000"}] * 2
    (dropped,) = told(found, Level.DROPPED)
    assert "alluxio.x" in dropped
    assert "endpoint" not in dropped


def test_what_kubectl_prints_is_taken():
    items = list(yaml.safe_load_all(ALLUXIO_S3))
    for item in items:
        item["metadata"] |= {"uid": "1", "resourceVersion": "2", "finalizers": ["x"]}
        item["status"] = {"phase": "Bound"}
    found = convert([{"apiVersion": "v1", "kind": "List", "items": items}])
    assert [made.document for made in found.documents] == [
        made.document for made in of(ALLUXIO_S3).documents
    ]


def test_access_for_writing_is_told():
    text = ALLUXIO_S3.replace("[ReadOnlyMany]", "[ReadWriteMany]").replace("Shared", "Exclusive")
    said = "".join(told(of(text), Level.CHANGED))
    assert "ReadWriteMany" in said
    assert "spec.placement" in said


@pytest.mark.parametrize(
    ("interval", "refresh"), [("10min", "10m"), ("90s", "90s"), ("1d", "1d"), ("-1", ""), ("0", "")]
)
def test_the_metadata_sync_interval_is_the_refresh_interval(interval, refresh):
    found = of(ALLUXIO_S3.replace("10min", f'"{interval}"'))
    spec = found.documents[0].document["spec"]
    assert spec.get("refresh", {}).get("interval", "") == refresh
    assert any("sync.interval" in text for text in told(found, Level.CHANGED)) == (interval != "-1")


def test_a_load_moves_to_the_namespace_of_its_dataset():
    found = of(
        ALLUXIO_S3.replace("name: warm, namespace: vision", "name: warm")
        .replace("policy: Cron", "policy: OnEvent")
        .replace('schedule: "0 3 * * *"', "runAfter: {kind: DataMigrate, name: m}")
    )
    load = found.documents[1].document
    assert load["metadata"]["namespace"] == "vision"
    assert "policy" not in load["spec"]
    said = "".join(told(found, Level.CHANGED))
    assert "OnEvent" in said
    assert "runAfter" in said


def test_a_whole_load_takes_the_copies_that_the_runtime_keeps():
    text = ALLUXIO_S3[: ALLUXIO_S3.index("  target:")]
    assert of(text).documents[1].document["spec"] == {"dataset": "imagenet", "replicas": 2}


def test_without_one_quota_there_is_none():
    """The default is a share of the node's cache directory, which no sum of a part can be."""
    text = ALLUXIO_S3.replace('quotaList: "300Gi,200Gi"', 'high: "0.9"')
    assert spec_of(text)["cache"]["tiers"] == [{"high": 0.9, "low": 0.7}]


def test_what_our_parser_refuses_is_a_todo():
    found = of(ALLUXIO_S3.replace('"0 3 * * *"', '"every day"'))
    assert any("spec.schedule" in text for text in told(found, Level.TODO))
    assert found.documents[1].document["spec"]["schedule"] == "every day"


def test_others_are_told_and_left():
    found = of("""
        apiVersion: v1
        kind: Secret
        metadata: {name: mysecret}
        ---
        apiVersion: v1
        kind: Pod
        metadata: {name: t, labels: {fuse.serverful.fluid.io/inject: "true"}}
        ---
        apiVersion: data.fluid.io/v1alpha1
        kind: DataMigrate
        metadata: {name: copy}
        ---
        apiVersion: data.fluid.io/v1alpha1
        kind: AlluxioRuntime
        metadata: {name: alone}
        """)
    assert found.documents == ()
    assert [note.document for note in found.notes] == [
        *("Secret mysecret", "Pod t", "DataMigrate copy", "AlluxioRuntime alone"),
    ]
    assert [n.level for n in found.notes] == [*[Level.DROPPED] * 3, Level.TODO]


@pytest.mark.parametrize(
    "text",
    [ALLUXIO_S3, JINDO_OSS, JUICEFS, THIN_MINIO, GCS, REFERENCE, NESTED],
    ids=["alluxio", "jindo", "juicefs", "thin", "gcs", "reference", "nested"],
)
def test_our_parser_and_our_origins_take_the_result(text):
    for made in of(text).documents:
        if made.document["kind"] == "DataLoad":
            parse_dataload(made.document)
            continue
        for mount in parse_dataset(made.document).spec.mounts:
            secrets = {o.name: "x" for o in mount.encrypt_options}
            translate(parse_address(mount.mount_point), dict(mount.options) | secrets, {})


FIELDS = (
    *("metadata", "name", "namespace", "spec", "mounts", "mountPoint", "path", "options"),
    *("encryptOptions", "valueFrom", "tieredstore", "levels", "quota", "quotaList", "high", "low"),
    *("worker", "podMetadata", "labels", "target", "dataset", "nodeAffinity", "required"),
    *("nodeSelectorTerms", "tolerations", "properties", "replicas", "data", "volumes", "items"),
    *("volumeMounts", "annotations", "sharedOptions", "policy", "schedule", "nodeSelector"),
)
SCALAR = st.none() | st.booleans() | st.integers() | st.text(max_size=8)
JUNK = st.recursive(
    SCALAR,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(FIELDS) | st.integers(), inner, max_size=4)
    ),
    max_leaves=12,
)
SPEC = st.dictionaries(st.sampled_from(FIELDS), JUNK | st.lists(JUNK, max_size=2), max_size=6)


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "apiVersion": st.just("data.fluid.io/v1alpha1"),
                "kind": st.sampled_from(["Dataset", "AlluxioRuntime", "DataLoad", "List"]),
                "metadata": st.just({"name": "a"}) | JUNK,
                "spec": SPEC | JUNK,
            }
        ),
        max_size=3,
    )
)
def test_no_input_breaks_it(documents):
    found = convert(documents)
    for made in found.documents:
        parse = parse_dataset if made.document["kind"] == "Dataset" else parse_dataload
        try:
            parse(made.document)
        except SpecError:
            assert any(note.level is Level.TODO for note in made.notes)
