"""Publishing as the kubelet asks for it: every mode, twice, wrong, waiting, by client."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cache_worker.csi import csi_pb2 as csi
from cacheop.api.errors import CredentialError
from cacheop.api.tokens import client_token
from cacheop.client.filesystem import CacheopFileSystem
from tests.fakes.kubelet import REPOSITORY, wait_for
from tests.node.csi.conftest import checksums

pytestmark = pytest.mark.node
READER = """
import hashlib, json, os, sys
from cacheop.client.filesystem import CacheopFileSystem
files = CacheopFileSystem(cache=sys.argv[1], skip_instance_cache=True)
name = sys.argv[2]
files.cat_file(f"{name}/train/a.bin")
os.setgroups([]); os.setgid(12345); os.setuid(12345)
print(json.dumps({
    path.split("/", 1)[1]: hashlib.sha256(files.cat_file(path)).hexdigest()
    for path in files.find(name)
}))
"""


def test_the_kubelet_learns_who_the_plugin_is(kubelet):
    found = kubelet.registered()
    assert (found.type, found.name) == ("CSIPlugin", "cacheop.io")
    assert found.endpoint == str(kubelet.socket)
    assert list(found.supported_versions) == ["1.0.0"]
    request, answer = csi.NodeGetInfoRequest(), csi.NodeGetInfoResponse
    assert kubelet.call("csi.v1.Node/NodeGetInfo", request, answer).node_id == "node-a"


@pytest.mark.parametrize("mode", ["ZeroOpen", "Passthrough", "Fuse"])
def test_pods_read_every_byte_in_each_mode(kubelet, stored, mode):
    data = stored()
    kubelet.worker("imagenet", data.mounts, spec={"mount": {"mode": mode}})
    first = kubelet.publish_in_the_end("reader-1", {"dataset": "imagenet"})
    second = kubelet.publish("reader-2", {"dataset": "imagenet"})
    assert checksums(first) == checksums(second) == data.checksums
    devices = {os.stat(first).st_dev, os.stat(second).st_dev}
    assert len(devices) == (1 if mode == "ZeroOpen" else 2)
    before = kubelet.mounted()
    assert kubelet.publish("reader-1", {"dataset": "imagenet"}) == first
    assert kubelet.mounted() == before
    kubelet.unpublish("reader-1")
    assert checksums(second) == data.checksums
    kubelet.unpublish("reader-2")
    kubelet.unpublish("reader-2")
    assert not first.exists()
    assert not second.exists()
    assert [kind for _, kind in kubelet.mounted() if kind == "fuse.cacheop"] == []


def test_what_is_complete_is_bound_and_waits_for_nobody(kubelet, stored):
    data = stored()
    worker = kubelet.worker("imagenet", data.mounts)
    target = kubelet.publish_in_the_end("reader", {"dataset": "imagenet", "waitFor": "complete"})
    (kind,) = [kind for path, kind in kubelet.mounted() if path == str(target)]
    assert kind != "fuse.cacheop"
    worker.stop()
    assert checksums(target) == data.checksums
    with pytest.raises(OSError, match="Read-only"):
        (target / "new").touch()
    assert not kubelet.stats("reader").volume_condition.abnormal
    kubelet.unpublish("reader")
    assert not target.exists()


def test_a_percentage_tells_how_far_it_is(kubelet, stored):
    data = stored({f"f{n}": 1 << 20 for n in range(40)})
    limit = {"prefetch": {"maxOriginBytesPerSecond": "2Mi"}}
    kubelet.worker("slow", data.mounts, spec=limit).wait_ready()
    code, words = kubelet.refusal("reader", {"dataset": "slow", "waitFor": "cached"})
    assert code == "UNAVAILABLE"
    assert "% cached" in words
    assert "waitFor: cached" in words


def test_a_client_reads_by_socket_and_view_and_cannot_do_more(kubelet, stored):
    data = stored()
    kubelet.worker("imagenet", data.mounts)
    attributes = {"dataset": "imagenet", "access": "client"}
    view = kubelet.publish_in_the_end("trainer", attributes)
    assert sorted(os.listdir(view)) == ["chunks", "client", "data", "manifest"]
    done = subprocess.run(
        [sys.executable, "-c", READER, str(view), "imagenet.vision"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == data.checksums
    for path in ("new", "data/new", "client/new"):
        with pytest.raises(OSError, match="Read-only"):
            (view / path).touch()
    assert kubelet.publish("trainer", attributes) == view
    kubelet.unpublish("trainer")
    assert not view.exists()


def test_a_pod_without_a_volume_reads_through_the_services(kubelet, stored):
    """By addresses here, as there is no DNS: nobody at the first, which is the node's own."""
    data = stored()
    worker = kubelet.worker("imagenet", data.mounts)
    worker.wait_ready()
    token = client_token((worker.path / "token/control").read_text())
    endpoint = f"127.0.0.1:9,{worker.ip}:7071"
    files = CacheopFileSystem(endpoint=endpoint, token=token, skip_instance_cache=True)
    found = {
        path.split("/", 1)[1]: hashlib.sha256(files.cat_file(path)).hexdigest()
        for path in files.find("imagenet.vision")
    }
    assert found == data.checksums
    other = CacheopFileSystem(endpoint=endpoint, token="0" * 64, skip_instance_cache=True)
    with pytest.raises(CredentialError, match="wrong token"):
        other.cat_file("imagenet.vision/train/a.bin")


def test_no_worker_yet_is_said_in_words(kubelet):
    started = time.monotonic()
    code, words = kubelet.refusal("early", {"dataset": "imagenet"})
    assert code == "UNAVAILABLE"
    assert "no worker of the Dataset vision/imagenet answers on this node yet" in words
    assert time.monotonic() - started < 7


def test_a_pod_that_waits_is_mounted_soon_after_the_worker_is_ready(kubelet, stored):
    data = stored()
    kubelet.refusal("early", {"dataset": "imagenet"})
    worker = kubelet.worker("imagenet", data.mounts)
    target = kubelet.publish("early", {"dataset": "imagenet"}, seconds=60)
    assert worker.ask("health")["ready"]
    assert checksums(target) == data.checksums


def test_unpublish_ends_a_publish_that_waits(kubelet):
    kubelet.refusal("early", {"dataset": "imagenet"})
    found = []
    thread = threading.Thread(
        target=lambda: found.append(kubelet.refusal("early", {"dataset": "imagenet"}, seconds=60))
    )
    thread.start()
    time.sleep(0.5)
    started = time.monotonic()
    kubelet.unpublish("early")
    assert time.monotonic() - started < 5
    thread.join(5)
    assert found[0][0] == "UNAVAILABLE"


@pytest.mark.parametrize(
    ("attributes", "code", "words"),
    [
        ({}, "INVALID_ARGUMENT", "which Dataset"),
        ({"dataset": "imagenet", "colour": "red"}, "INVALID_ARGUMENT", "'colour' is not known"),
        ({"dataset": "../x"}, "INVALID_ARGUMENT", "not a name"),
        ({"dataset": "imagenet", "version": "../1"}, "INVALID_ARGUMENT", "is none"),
        ({"dataset": "imagenet", "waitFor": "ever"}, "INVALID_ARGUMENT", "waitFor"),
        ({"dataset": "imagenet", "access": "all"}, "INVALID_ARGUMENT", "access"),
        ({"dataset": "imagenet", "uid": "u"}, "INVALID_ARGUMENT", "uid"),
        ({"cache": "imagenet"}, "INVALID_ARGUMENT", "uid"),
        ({"cache": "imagenet", "uid": "../../etc"}, "INVALID_ARGUMENT", "uid"),
        ({"cache": "a/b", "uid": "u"}, "INVALID_ARGUMENT", "not a name"),
        ({"dataset": "imagenet", "namespace": "nlp"}, "PERMISSION_DENIED", "nlp/imagenet"),
    ],
)
def test_bad_attributes_are_refused_in_words(kubelet, attributes, code, words):
    found = kubelet.refusal("pod", attributes)
    assert found[0] == code
    assert words in found[1]
    assert kubelet.mounted() == []


def test_a_target_elsewhere_is_refused(kubelet):
    request = csi.NodePublishVolumeRequest(
        volume_id="v",
        target_path="/etc/passwd.d",
        volume_capability=csi.VolumeCapability(mount=csi.VolumeCapability.MountVolume()),
    )
    with pytest.raises(Exception, match="not below the kubelet's directory"):
        kubelet.call("csi.v1.Node/NodePublishVolume", request, csi.NodePublishVolumeResponse)


def test_datasets_of_one_name_in_two_namespaces_never_meet(kubelet, stored):
    vision, nlp = stored({"v.bin": 1000}), stored({"n.bin": 2000})
    kubelet.worker("data", vision.mounts)
    kubelet.worker("data", nlp.mounts, namespace="nlp")
    seen = kubelet.publish_in_the_end("p1", {"dataset": "data"})
    other = kubelet.publish_in_the_end("p2", {"dataset": "data"}, namespace="nlp")
    assert checksums(seen) == vision.checksums
    assert checksums(other) == nlp.checksums
    code, _ = kubelet.refusal("p3", {"dataset": "data"}, namespace="third")
    assert code == "UNAVAILABLE"


def test_a_persistent_volume_is_of_the_dataset_it_names(kubelet, stored):
    data = stored()
    worker = kubelet.worker("imagenet", data.mounts)
    attributes = {"dataset": "imagenet", "namespace": "vision", "uid": worker.uid}
    target = kubelet.publish_in_the_end("shared", attributes, namespace="nlp", inline=False)
    assert checksums(target) == data.checksums
    other = {**attributes, "uid": "0000-other"}
    code, _ = kubelet.refusal("old", other, namespace="vision", inline=False)
    assert code == "UNAVAILABLE"


def test_somebody_elses_mount_at_the_target_stays(kubelet, stored):
    data = stored()
    kubelet.worker("imagenet", data.mounts).wait_ready()
    target = kubelet.target("pod")
    target.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "foreign", target], check=True)
    (target / "theirs").write_text("x")
    assert kubelet.refusal("pod", {"dataset": "imagenet"})[0] == "ALREADY_EXISTS"
    with pytest.raises(Exception, match="not ours"):
        kubelet.unpublish("pod")
    assert (target / "theirs").read_text() == "x"


def test_files_at_the_target_are_not_deleted(kubelet):
    target = kubelet.target("pod")
    target.mkdir(parents=True)
    (target / "theirs").write_text("x")
    kubelet.unpublish("pod")
    assert (target / "theirs").read_text() == "x"


def test_stats_tell_size_and_condition(kubelet, stored):
    data = stored()
    worker = kubelet.worker("imagenet", data.mounts, spec={"mount": {"mode": "Fuse"}})
    kubelet.publish_in_the_end("reader", {"dataset": "imagenet"})
    wait_for(lambda: not kubelet.stats("reader").volume_condition.abnormal)
    found = kubelet.stats("reader")
    total = 10_000 + 300_000 + (9 << 20)
    assert [(u.unit, u.total, u.available) for u in found.usage] == [(1, total, 0), (2, 4, 0)]
    assert kubelet.stats(worker.pod, "cache").usage[0].available > 0
    worker.stop()
    assert "away" in kubelet.stats("reader").volume_condition.message


def test_the_worker_has_no_rights_and_a_directory_of_its_own(kubelet, stored):
    worker = kubelet.worker("imagenet", stored().mounts)
    worker.wait_ready()
    found = os.stat(worker.root)
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (65532, 65532, 0o700)
    (pid,) = worker.pids("work")
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines)
    assert status["Uid"].split() == ["65532"] * 4
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(worker.root / "client/client.sock"))
