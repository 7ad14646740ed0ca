"""CONFIG of a worker's pod, from what Kubernetes gives it."""

from __future__ import annotations

import json

import pytest

from cache_worker import pod, settings
from cacheop.api.errors import UserError

DATASET = {
    "apiVersion": "cacheop.io/v1alpha1",
    "kind": "Dataset",
    "metadata": {"name": "imagenet", "namespace": "vision", "uid": "u-1"},
    "spec": {"mounts": [{"mountPoint": "s3://bucket/"}]},
}
REDIS = {"url": "redis://cacheop-u-1@redis:6379/0", "prefix": "cacheop:u-1:"}
ENVIRONMENT = {"CACHEOP_NODE": "node-a", "CACHEOP_POD_IP": "10.0.0.7"}


def test_config_is_what_the_worker_reads(tmp_path):
    worker = {"zones": {"node-a": "eu-1", "node-b": "eu-2"}, "redis": REDIS, "suspend": True}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(pod.config_of(DATASET, worker, ENVIRONMENT)))
    found = settings.load(path)
    assert (found.namespace, found.name, found.node) == ("vision", "imagenet", "node-a")
    assert (found.http, found.tcp) == ("10.0.0.7:9090", "0.0.0.0:7071")
    assert (found.cluster.peers, found.cluster.zone) == ("10.0.0.7:7070", "eu-1")
    assert found.cluster.redis.prefix == "cacheop:u-1:"
    assert str(found.cluster.redis.server.password_file) == "/token/redis"
    assert (str(found.root), str(found.token_file)) == ("/cache", "/token/control")
    assert found.dataset.spec.suspend
    assert found.follow == "/config"


def test_without_redis_it_is_alone_and_ipv6_has_brackets():
    environment = {**ENVIRONMENT, "CACHEOP_POD_IP": "fd00::7"}
    config = pod.config_of(DATASET, {"redis": None}, environment)
    assert (config["peers"], config["members"]) == ("", {})
    assert config["tcp"] == "[::]:7071"


def test_claims_are_read_where_the_kubelet_mounts_them():
    spec = {"mounts": [{"mountPoint": "pvc://claim/sub/path/"}]}
    config = pod.config_of({**DATASET, "spec": spec}, {}, ENVIRONMENT)
    assert config["dataset"]["spec"]["mounts"][0]["mountPoint"] == "file:///pvc/claim/sub/path/"


@pytest.mark.parametrize("url", ["file:///etc/", "local:///etc/", "memory://x/"])
def test_the_nodes_own_files_are_no_origin(url):
    with pytest.raises(UserError, match="mountPoint"):
        pod.config_of({**DATASET, "spec": {"mounts": [{"mountPoint": url}]}}, {}, ENVIRONMENT)


def test_what_is_not_whole_is_refused():
    for environment in ({}, {"CACHEOP_NODE": "a"}):
        with pytest.raises(UserError, match="not whole"):
            pod.config_of(DATASET, {}, environment)
    with pytest.raises(UserError, match="not whole"):
        pod.config_of({**DATASET, "metadata": {"name": "x"}}, {}, ENVIRONMENT)
