"""What a node runs: containerd with runc, kubelet, kube-proxy; and their configuration."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.cluster.lab import build
from tests.cluster.lab.control import kubeconfig
from tests.cluster.lab.init import DISK
from tests.cluster.lab.machines import run
from tests.cluster.lab.network import POD_RANGE

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cluster.lab.network import Node

DISK_BYTES = 8 << 30
PAUSE_IMAGE = "localhost/pause:1"
CNI_PLUGINS = "/usr/lib/cni"  # Debian's containernetworking-plugins


def socket(node: Node) -> Path:
    """containerd's, reachable from outside the machine too."""
    return node.machine.directory / "containerd.sock"


def ctr(node: Node, *arguments: str) -> list[str]:
    """containerd's own command line, in the namespace that the kubelet uses."""
    return [str(build.binary("ctr")), "--address", str(socket(node)), "-n", "k8s.io", *arguments]


def make_disk(node: Node) -> None:
    """An empty ext4 for the cache, where there is none; it takes no room until it is written."""
    disk = node.machine.directory / DISK
    if not disk.exists():
        disk.parent.mkdir(parents=True, exist_ok=True)
        new = disk.with_suffix(".new")
        with new.open("wb") as file:
            file.truncate(DISK_BYTES)
        run(["/sbin/mkfs.ext4", "-q", "-m", "0", str(new)])
        new.rename(disk)


def configure(node: Node) -> None:
    """Write the files that the daemons read."""
    directory = node.machine.directory
    cni = directory / "cni-conf"
    cni.mkdir(parents=True, exist_ok=True)
    for path, content in (
        (cni / "10-lab.conflist", json.dumps(_cni(node))),
        (directory / "containerd.toml", _containerd(node)),
        (directory / "kubelet.yaml", json.dumps(_kubelet(node), indent=1)),
        (directory / "kube-proxy.yaml", json.dumps(_kube_proxy(node), indent=1)),
    ):
        path.write_text(content)


def daemons(node: Node) -> dict[str, list[str]]:
    """What the node's machine runs."""
    directory = node.machine.directory
    beside = ":".join(str(build.binary(name).parent) for name in ("containerd", "runc"))
    path = f"PATH={beside}:/usr/sbin:/usr/bin:/sbin:/bin"
    return {
        "containerd": [
            "/usr/bin/env",
            path,
            str(build.binary("containerd")),
            f"--config={directory / 'containerd.toml'}",
        ],
        "kubelet": [
            str(build.binary("kubelet")),
            f"--config={directory / 'kubelet.yaml'}",
            f"--kubeconfig={kubeconfig(f'system:node:{node.name}')}",
            f"--hostname-override={node.name}",
            f"--node-ip={node.machine.address}",
            f"--node-labels=topology.kubernetes.io/zone={node.zone}",
        ],
        "kube-proxy": [
            str(build.binary("kube-proxy")),
            f"--config={directory / 'kube-proxy.yaml'}",
        ],
    }


def _cni(node: Node) -> dict[str, object]:
    addresses = {
        "type": "host-local",
        "ranges": [[{"subnet": node.pods}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        # On the machine's own /run: a machine that starts again has no pods.
        "dataDir": "/run/cni-addresses",
    }
    return {
        "cniVersion": "1.0.0",
        "name": "lab",
        "plugins": [
            {"type": "ptp", "ipMasq": False, "ipam": addresses},
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def _containerd(node: Node) -> str:
    # restrict_oom_score_adj: only CAP_SYS_RESOURCE may lower that score, and CI machines lack it.
    return f"""\
version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "{socket(node)}"
[ttrpc]
  address = "/run/containerd/containerd.sock.ttrpc"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "{PAUSE_IMAGE}"
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.containerd]
  default_runtime_name = "runc"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ["{CNI_PLUGINS}"]
  conf_dir = "{node.machine.directory / "cni-conf"}"
[plugins.'io.containerd.nri.v1.nri']
  disable = true
"""


def _kubelet(node: Node) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": node.machine.address,
        # Groups of processes as they are here: version 1, and nobody's to rearrange.
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": False,
        "enforceNodeAllocatable": [],
        "containerRuntimeEndpoint": f"unix://{socket(node)}",
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "failSwapOn": False,
        "maxPods": 200,
        # The disk is the machine's, mostly full of other things: no images are thrown away for it.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"nodefs.available": "500Mi", "imagefs.available": "500Mi",
                         "memory.available": "100Mi"},
        "resolvConf": "",
        # Changed ConfigMaps and Secrets reach their pods within this, not within a minute.
        "syncFrequency": "5s",
    }  # fmt: skip


def _kube_proxy(node: Node) -> dict[str, object]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(kubeconfig("system:kube-proxy"))},
        "hostnameOverride": node.name,
        "mode": "nftables",
        "clusterCIDR": POD_RANGE,
        # 0: leave the kernel's limits, which a network namespace may not raise.
        "conntrack": {"maxPerCore": 0},
    }
