from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_worker.members.settings import parse_url
from cacheop.api.dataset import parse_dataset
from cacheop.api.tokens import client_token
from cacheop.operator.manifests import config, network, volume, workers
from cacheop.operator.manifests.owned import Owner
from cacheop.operator.settings import WorkerDefaults
from cacheop.operator.tokens import MasterKey
from tests.fakes.cluster_facts import UID, VERSION, spec_of

DEFAULTS = WorkerDefaults(image="registry/cacheop:1", priority_class="cacheop-worker")


def owner(**fields) -> Owner:
    return Owner("team", "mine", UID, spec_of(**fields))


def pod_of(**fields):
    return workers.daemon_set(owner(**fields), ["a"], DEFAULTS)["spec"]["template"]["spec"]


def test_what_the_workers_read_is_the_dataset():
    found = config.config_map(
        owner(replicas=3), {"a": "zone-1"}, config.redis_url("redis://r:6379/2", UID), VERSION
    )
    told = json.loads(found["data"]["dataset.json"])
    assert told["metadata"] == {"name": "mine", "namespace": "team", "uid": UID}
    told["metadata"].pop("uid")
    assert parse_dataset(told).spec == owner(replicas=3).spec
    worker = json.loads(found["data"]["worker.json"])
    assert worker["zones"] == {"a": "zone-1"}
    assert worker["version"] == VERSION
    assert worker["suspend"] is False
    server = parse_url("redis", worker["redis"]["url"], "/token/redis")
    assert (server.user, server.host, server.database) == (f"cacheop-{UID}", "r", 2)
    assert worker["redis"]["prefix"] == f"cacheop:{UID}:"


def test_without_a_redis_it_is_null():
    found = config.config_map(owner(), {}, "", "")
    assert json.loads(found["data"]["worker.json"])["redis"] is None


def test_everything_at_home_is_owned_and_labelled():
    documents = [
        config.config_map(owner(), {}, "", ""),
        *network.services(owner()),
        network.network_policy(owner(), "cacheop-system", ()),
        workers.daemon_set(owner(), ["a"], DEFAULTS),
        volume.claim(owner(), "team"),
    ]
    for document in documents:
        metadata = document["metadata"]
        assert metadata["ownerReferences"][0]["uid"] == UID
        assert metadata["labels"]["cacheop.io/dataset"] == "mine"
        assert metadata["namespace"] == "team"


def test_what_lies_elsewhere_has_no_owner_but_says_whose_it_is():
    """An owner in another namespace would have it collected at once."""
    for document in (volume.volume(owner(), "team"), volume.claim(owner(), "nlp")):
        assert "ownerReferences" not in document["metadata"]
        assert document["metadata"]["labels"]["cacheop.io/home"] == "team"
        assert document["metadata"]["labels"]["cacheop.io/dataset-uid"] == UID


def test_volume_and_claim_find_each_other():
    for home in ("team", "nlp"):
        pv, pvc = volume.volume(owner(), home), volume.claim(owner(), home)
        assert pvc["spec"]["volumeName"] == pv["metadata"]["name"]
        assert pv["spec"]["claimRef"]["namespace"] == pvc["metadata"]["namespace"] == home
        assert pv["spec"]["claimRef"]["name"] == pvc["metadata"]["name"] == "mine"
        assert pv["spec"]["csi"]["volumeHandle"] == pv["metadata"]["name"]
        attributes = {"dataset": "mine", "namespace": "team", "uid": UID}
        assert pv["spec"]["csi"]["volumeAttributes"] == attributes
        assert pvc["spec"]["storageClassName"] == pv["spec"]["storageClassName"] == ""
    assert volume.volume(owner(), "team")["metadata"]["name"] == f"cacheop-{UID}"
    assert volume.volume(owner(), "nlp")["metadata"]["name"] == f"cacheop-{UID}-nlp"


def test_pods_are_restricted():
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted"""
    pod = pod_of()
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    allowed = {"configMap", "csi", "emptyDir", "projected", "persistentVolumeClaim"}
    for vol in pod["volumes"]:
        assert set(vol) - {"name"} <= allowed
    for container in pod["containers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["readOnlyRootFilesystem"] is True


def test_a_worker_sees_its_own_keys_only():
    (token,) = [v for v in pod_of()["volumes"] if v["name"] == "token"]
    (source,) = token["projected"]["sources"]
    assert source["secret"]["items"] == [
        {"key": f"{UID}.control", "path": "control"},
        {"key": f"{UID}.redis", "path": "redis"},
    ]


def test_origin_secrets_are_optional_and_only_the_keys_that_are_named():
    options = [
        {"name": n, "valueFrom": {"secretKeyRef": {"name": "s3", "key": k}}}
        for n, k in (("key", "id"), ("secret", "secret"))
    ]
    mounts = [{"mountPoint": "s3://b/", "path": "/", "encryptOptions": options}]
    (found,) = [v for v in pod_of(mounts=mounts)["volumes"] if v["name"] == "secrets"]
    (source,) = found["projected"]["sources"]
    assert source["secret"]["optional"] is True
    assert [item["path"] for item in source["secret"]["items"]] == ["s3/id", "s3/secret"]


def test_a_claim_as_origin_is_mounted_read_only():
    mounts = [{"mountPoint": "pvc://nfs-data/images", "path": "/"}]
    pod = pod_of(mounts=mounts)
    assert {"claimName": "nfs-data", "readOnly": True} in [
        v.get("persistentVolumeClaim") for v in pod["volumes"]
    ]
    (mount,) = [m for m in pod["containers"][0]["volumeMounts"] if m["name"] == "pvc-0"]
    assert (mount["mountPath"], mount["readOnly"]) == ("/pvc/nfs-data", True)


def test_workers_tolerate_everything_unless_told():
    assert pod_of()["tolerations"] == [{"operator": "Exists"}]
    told = pod_of(tolerations=[{"key": "gpu", "operator": "Exists"}])["tolerations"]
    assert told == [{"key": "gpu", "operator": "Exists"}]


def test_memory_is_asked_for_as_it_is_limited():
    found = pod_of()["containers"][0]["resources"]
    assert found == {"requests": {"cpu": "20m", "memory": "512Mi"}, "limits": {"memory": "512Mi"}}
    tiers = [{"medium": "Disk"}, {"medium": "Memory", "quota": "1Gi"}]
    found = pod_of(cache={"tiers": tiers})["containers"][0]["resources"]
    assert found["requests"]["memory"] == found["limits"]["memory"] == "1536Mi"
    given_ = {"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "4", "memory": "2Gi"}}}
    found = pod_of(worker=given_)["containers"][0]["resources"]
    assert found["requests"] == {"cpu": "2", "memory": "2Gi"}
    assert found["limits"] == {"cpu": "4", "memory": "2Gi"}


def test_the_chart_gives_defaults_and_the_dataset_has_the_last_word():
    defaults = WorkerDefaults(labels={"a": "1", "b": "1"}, annotations={"x": "1"})
    spec = {"podLabels": {"b": "2"}, "podAnnotations": {"y": "2"}}
    found = workers.daemon_set(owner(worker=spec), ["a"], defaults)
    metadata = found["spec"]["template"]["metadata"]
    assert (metadata["labels"]["a"], metadata["labels"]["b"]) == ("1", "2")
    assert {"x", "y"} <= set(metadata["annotations"])


@pytest.mark.parametrize(
    "change",
    [
        {"worker": {"podLabels": {"a": "b"}}},
        {"worker": {"serviceAccountName": "other"}},
        {"tolerations": []},
        {"mounts": [{"mountPoint": "pvc://claim/x", "path": "/"}]},
    ],
)
def test_the_hash_changes_with_the_template(change):
    before = workers.template_of(workers.daemon_set(owner(), ["a"], DEFAULTS))
    assert workers.template_of(workers.daemon_set(owner(**change), ["a"], DEFAULTS)) != before


@given(st.sets(st.text("abc-", min_size=1, max_size=4)))
def test_the_nodes_do_not_change_the_hash_and_are_read_back(names):
    found = workers.daemon_set(owner(), names, DEFAULTS)
    assert workers.named_nodes(found) == names
    none = workers.daemon_set(owner(), [], DEFAULTS)
    assert workers.template_of(found) == workers.template_of(none)


def test_a_spec_that_workers_take_live_does_not_change_the_hash():
    before = workers.template_of(workers.daemon_set(owner(), ["a"], DEFAULTS))
    other = owner(replicas=5, suspend=True, version=VERSION, prefetch={"mode": "Off"})
    assert workers.template_of(workers.daemon_set(other, ["a"], DEFAULTS)) == before


def test_who_may_connect():
    policy = network.network_policy(owner(), "cacheop-system", ("nlp",))
    peers, clients, metrics = policy["spec"]["ingress"]
    assert peers["ports"][0]["port"] == 7070
    assert "namespaceSelector" not in peers["from"][0], "peers are in the same namespace"
    (expression,) = clients["from"][0]["namespaceSelector"]["matchExpressions"]
    assert expression["values"] == ["cacheop-system", "nlp", "team"]
    assert "from" not in metrics


def test_the_secret_has_a_group_of_keys_for_each_dataset():
    key = MasterKey(b"k" * 32)
    found = config.secret("team", ["u1", "u2"], ["u3"], key)
    data = {k: base64.b64decode(v).decode() for k, v in found["data"].items()}
    assert set(data) == {
        *(f"{uid}.{purpose}" for uid in ("u1", "u2") for purpose in ("control", "client", "redis")),
        "u3.client",
    }
    assert len(set(data.values())) == 7
    assert data["u1.client"] == client_token(data["u1.control"]), "as a worker computes it"
    other = config.secret("team", ["u1"], [], MasterKey(b"k" * 32, epoch=2))["data"]
    assert not set(other.values()) & set(found["data"].values())


def test_the_list_for_node_plugins_is_whole():
    known = {(f"ns{k}", f"data{k}", UID) for k in range(10)}
    (one,) = config.datasets("cacheop-system", known, 7)
    told = json.loads(one["data"]["datasets.json"])
    assert (told["generation"], told["shard"], told["shards"]) == (7, 0, 1)
    assert {(d["namespace"], d["name"], d["uid"]) for d in told["datasets"]} == known
    (none,) = config.datasets("cacheop-system", [], 8)
    assert json.loads(none["data"]["datasets.json"])["datasets"] == []


def test_many_are_in_shards_below_what_a_config_map_holds():
    known = [(f"namespace-{k}", f"dataset-{k}", UID) for k in range(12_000)]
    shards = config.datasets("cacheop-system", known, 1)
    assert len(shards) > 1
    assert len({shard["metadata"]["name"] for shard in shards}) == len(shards)
    sizes = [len(shard["data"]["datasets.json"]) for shard in shards]
    assert max(sizes) < config.SHARD_BYTES + 200
    told = [json.loads(shard["data"]["datasets.json"]) for shard in shards]
    assert {t["shards"] for t in told} == {len(shards)}
    assert sum(len(t["datasets"]) for t in told) == 12_000
