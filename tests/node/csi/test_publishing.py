"""Publishing as the kubelet asks for it: every mode, twice, wrong, and after deaths."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from cache_worker.csi import csi_pb2 as csi
from tests.fakes.kubelet import wait_for
from tests.node.csi.conftest import checksums

pytestmark = pytest.mark.node


def test_the_kubelet_learns_who_the_plugin_is(kubelet):
    found = kubelet.registered()
    assert (found.type, found.name) == ("CSIPlugin", "cacheop.io")
    assert found.endpoint == str(kubelet.socket)
    assert list(found.supported_versions) == ["1.0.0"]
    info = kubelet.call(
        "csi.v1.Node/NodeGetInfo", csi.NodeGetInfoRequest(), csi.NodeGetInfoResponse
    )
    assert info.node_id == "node-a"


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
