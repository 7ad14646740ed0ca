"""Kubernetes and what it needs, built from Go modules, each binary once.

A binary lies in a directory named after its module's version, and appears there when it is whole:
what was interrupted goes on where it stopped (Go keeps what it compiled).
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.cluster.lab.places import CACHE, MODULES

if TYPE_CHECKING:
    from pathlib import Path

LEAST_GO = (1, 26)
STEP_SECONDS = 1500
KUBERNETES = "v1.37.2"
_MAJOR, _MINOR, _ = KUBERNETES[1:].split(".")
CONTAINERD = "v2.4.2"
# What client and server say they are; without it helm and kubectl meet a "v0.0.0-master".
_STAMPS = " ".join(
    f"-X {package}.{name}={value}"
    for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    for name, value in (
        ("gitVersion", KUBERNETES),
        ("gitMajor", _MAJOR),
        ("gitMinor", _MINOR),
        ("gitTreeState", "clean"),
    )
)


@dataclass(frozen=True, slots=True)
class Binary:
    """One program of a project. Its module is the proxy's, or one of ours that requires it."""

    name: str
    project: str
    version: str
    package: str
    own_module: bool = False
    tags: str = ""
    stamps: str = ""
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """Where it is when it was built."""
        return CACHE / f"{self.project}-{self.version}" / self.name


def _kubernetes(name: str) -> Binary:
    package = f"k8s.io/kubernetes/cmd/{name}"
    return Binary(name, "kubernetes", KUBERNETES, package, own_module=True, stamps=_STAMPS)


def _containerd(name: str) -> Binary:
    package = f"github.com/containerd/containerd/v2/cmd/{name}"
    return Binary(name, "containerd", CONTAINERD, package, tags="no_btrfs no_devmapper no_zfs")


BINARIES = [
    Binary("pause", "pause", "v1", "cacheop.io/tests/pause", own_module=True),
    # Like Kubernetes it has `replace` in its go.mod, which `go install` refuses.
    Binary("etcd", "etcd", "v3.6.14", "go.etcd.io/etcd/server/v3", own_module=True),
    # The only one with C in it: a runtime must enter namespaces before Go starts its threads.
    Binary(
        "runc",
        "runc",
        "v1.5.2",
        "github.com/opencontainers/runc",
        tags="seccomp",
        environment={"CGO_ENABLED": "1"},
    ),
    _containerd("containerd"),
    _containerd("containerd-shim-runc-v2"),
    _containerd("ctr"),
    _kubernetes("kube-apiserver"),
    _kubernetes("kube-controller-manager"),
    _kubernetes("kube-scheduler"),
    _kubernetes("kubelet"),
    _kubernetes("kube-proxy"),
    _kubernetes("kubectl"),
    Binary("helm", "helm", "v4.3.1", "helm.sh/helm/v4/cmd/helm"),
    Binary(
        "csi-sanity", "csi-test", "v5.6.0", "github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity"
    ),
]


def binary(name: str) -> Path:
    """The program of that name, which must have been built."""
    return next(one.path for one in BINARIES if one.name == name)


def directories() -> str:
    """Where they all are, as PATH wants it."""
    return ":".join(sorted({str(one.path.parent) for one in BINARIES}))


def missing() -> list[str]:
    """What is not built yet."""
    return [one.name for one in BINARIES if not one.path.exists()]


def build(names: list[str]) -> None:
    """Build these that are not there. Raises RuntimeError with what the compiler said."""
    wanted = [one for one in BINARIES if one.name in names and not one.path.exists()]
    if not wanted:
        return
    if why := lacks_go():
        raise RuntimeError(why)
    for number, one in enumerate(wanted, 1):
        one.path.parent.mkdir(parents=True, exist_ok=True)
        # Several checkouts share the cache: who comes second waits and finds it there.
        with one.path.with_name(f"{one.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if one.path.exists():
                continue
            began = time.monotonic()
            print(f"lab: building {one.name} {one.version} ({number} of {len(wanted)})", flush=True)
            _build(one)
            print(f"lab: {one.name} took {time.monotonic() - began:.0f} s", flush=True)


def _build(one: Binary) -> None:
    target = one.path
    work = target.with_name(f".{one.name}")
    shutil.rmtree(work, ignore_errors=True)  # of a build that was killed
    work.mkdir()
    try:
        flags = ["-trimpath", "-buildvcs=false", f"-ldflags=-s -w {one.stamps}"]
        if one.tags:
            flags.append(f"-tags={one.tags}")
        environment = {**os.environ, "CGO_ENABLED": "0", "GOBIN": str(work)} | one.environment
        if one.own_module:
            command = ["go", "build", "-o", str(work / one.name), *flags, one.package]
            directory = MODULES / one.project
        else:
            command = ["go", "install", *flags, f"{one.package}@{one.version}"]
            directory = work
        done = subprocess.run(
            command,
            cwd=directory,
            env=environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=STEP_SECONDS,
        )
        if done.returncode:
            raise RuntimeError(f"building {one.name}: {' '.join(command)}\n{done.stderr[-4000:]}")
        (work / one.name).rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def lacks_go() -> str:
    """Why this machine cannot build; empty when it can."""
    least = ".".join(map(str, LEAST_GO))
    if not shutil.which("go"):
        return (
            f"no go on PATH: Go >= {least} builds the test cluster. "
            "Or give a cluster: KUBECONFIG=… ./dev e2e"
        )
    said = subprocess.run(["go", "version"], check=True, capture_output=True, text=True).stdout
    found = re.search(r"go(\d+)\.(\d+)", said)
    if not found or (int(found[1]), int(found[2])) < LEAST_GO:
        return f"Go >= {least} is needed to build the test cluster, this is {said.strip()}"
    return ""
