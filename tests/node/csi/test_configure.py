"""A Dataset's spec changes while its worker runs, by its ConfigMap and by `configure`."""

from __future__ import annotations

import copy

import pytest

from cacheop.api.errors import UserError
from tests.fakes.kubelet import wait_for
from tests.node.csi.conftest import checksums

pytestmark = pytest.mark.node


def test_what_can_change_changes_at_once_and_the_rest_is_refused_with_the_reason(kubelet, stored):
    data = stored()
    worker = kubelet.worker("imagenet", data.mounts)
    worker.wait_ready()
    document = copy.deepcopy(worker.document)
    document["spec"] |= {
        "cache": {"tiers": [{"medium": "Disk", "quota": "64Mi"}], "pin": True},
        "suspend": True,
        "mount": {"mode": "Fuse"},
        "replicas": 2,
    }
    changed = worker.ask("configure", dataset=document)["changed"]
    assert set(changed) == {"cache", "suspend", "mount", "replicas"}
    status = worker.ask("status")
    assert (status["quota_bytes"], status["suspended"]) == (64 << 20, True)
    assert worker.ask("publish")["mode"] == "Fuse"
    assert worker.ask("configure", dataset=document)["changed"] == []
    for wrong, words in (
        ({"placement": "Cluster"}, "spec.placement"),
        ({"cache": {"tiers": [{"medium": "Memory", "quota": "1Gi"}]}}, "spec.cache.tiers"),
        ({"mounts": [{"mountPoint": "file:///etc/"}]}, "file:///etc/"),
    ):
        with pytest.raises(UserError, match=words):
            worker.ask("configure", dataset={**document, "spec": document["spec"] | wrong})
    assert worker.ask("status")["quota_bytes"] == 64 << 20
    (pid,) = worker.pids("work")
    worker.kill("work")
    wait_for(lambda: worker.pids("work") not in ([], [pid]))
    worker.wait_ready()
    wait_for(lambda: worker.ask("status")["quota_bytes"] == 64 << 20)


def test_a_changed_configmap_is_taken_up(kubelet, stored):
    data, other = stored(), stored({"new.bin": 5000})
    worker = kubelet.worker("imagenet", data.mounts)
    worker.wait_ready()
    before = worker.ask("status")["version"]
    running = kubelet.publish_in_the_end("running", {"dataset": "imagenet"})
    worker.configure(mounts=other.mounts)
    wait_for(lambda: worker.ask("status")["version"] != before)
    assert checksums(running) == data.checksums  # a mount keeps its version
    new = kubelet.publish("new", {"dataset": "imagenet"})
    assert checksums(new) == other.checksums
    old = kubelet.publish("pinned", {"dataset": "imagenet", "version": before})
    assert sorted(checksums(old)) == sorted(data.checksums)
    s3 = other.s3
    s3.http.put(other.bucket, "more.bin", b"more")
    worker.configure(refresh={"requestedAt": "2026-11-25T00:00:00Z"})
    wait_for(lambda: worker.ask("status")["file_count"] == 2)


def test_a_mended_secret_needs_no_restart(kubelet, stored):
    data = stored()
    (mount,) = data.mounts
    options = dict(mount["options"])
    secret = {key: options.pop(key) for key in ("key", "secret")}
    references = [
        {"name": key, "valueFrom": {"secretKeyRef": {"name": "s3", "key": key}}} for key in secret
    ]
    mounts = [{**mount, "options": options, "encryptOptions": references}]
    wrong = {**secret, "secret": "wrong"}
    worker = kubelet.worker("imagenet", mounts, secrets={"s3": wrong})
    code, words = kubelet.refusal("reader", {"dataset": "imagenet"})
    assert code in {"UNAVAILABLE", "FAILED_PRECONDITION"}
    assert "imagenet" in words
    (worker.path / "secrets/s3/secret").write_text(secret["secret"])
    target = kubelet.publish_in_the_end("reader", {"dataset": "imagenet"})
    assert checksums(target) == data.checksums
