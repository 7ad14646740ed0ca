"""What a cluster lacks for cacheop, from what its API says. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cacheop.api.dataload import DataLoadSpec
from cacheop.api.dataset import DatasetSpec
from cacheop.api.model import tree_of
from cacheop.api.names import API_GROUP, API_VERSION
from cacheop.cli import view
from cacheop.cli.probes import FAIL, OK, WARN, Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cacheop.cli.kube.rights import Right

SYSTEM_NAMESPACE = "cacheop-system"
LEAST_KUBERNETES = (1, 27)
LEAST_KERNEL = (5, 15)
PASSTHROUGH_KERNEL = (6, 9)
CRDS: Mapping[str, type[Any]] = {
    f"datasets.{API_GROUP}": DatasetSpec,
    f"dataloads.{API_GROUP}": DataLoadSpec,
}
INSTALL = "helm install, see docs/kubernetes.md"
ENFORCE = "pod-security.kubernetes.io/enforce"
_NUMBERS = re.compile(r"v?([0-9]+)\.([0-9]+)")
NAMES_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Facts:
    """What was read. None is what is not there; what may not be read is in `refused`."""

    cluster: str
    namespace: str
    """Where Datasets are to be."""
    version: str
    nodes: Sequence[Mapping[str, Any]] = ()
    crds: Mapping[str, Mapping[str, Any] | None] = field(default_factory=dict)
    driver: Mapping[str, Any] | None = None
    operators: Sequence[Mapping[str, Any]] = ()
    """Deployments with the operator's labels."""
    plugins: Sequence[Mapping[str, Any]] = ()
    """DaemonSets with the node plugin's labels."""
    system: Mapping[str, Any] | None = None
    """The system namespace."""
    rights: Mapping[Right, bool] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    """Field -> why it could not be read."""

    @property
    def is_installed(self) -> bool:
        """Whether its kinds are there."""
        return any(crd is not None for crd in self.crds.values())


def findings(facts: Facts) -> list[Finding]:
    """In the order in which one mends them."""
    return [
        _kubernetes(facts),
        *_nodes(facts),
        *_rights(facts),
        _pod_security(facts),
        *_installed(facts),
    ]


def numbers(version: str) -> tuple[int, int]:
    """`v1.31.4+k3s1` -> (1, 31); (0, 0) when there are none."""
    match = _NUMBERS.match(version)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _kubernetes(facts: Facts) -> Finding:
    found = f"{facts.cluster}, {facts.version}"
    if numbers(facts.version) >= LEAST_KUBERNETES:
        return Finding(OK, "Kubernetes", found)
    return Finding(
        FAIL, "Kubernetes", found, "the rules of the CRDs are not known there", "Use 1.27 or later"
    )


def _nodes(facts: Facts) -> Iterator[Finding]:
    if why := facts.refused.get("nodes"):
        yield Finding(WARN, "nodes", why, "their kernels are not known", "Ask who may list nodes")
        return
    usable = [n for n in facts.nodes if _info(n).get("operatingSystem", "linux") == "linux"]
    if not usable:
        yield Finding(FAIL, "nodes", "no Linux node", "nothing can run", "Add one")
        return
    yield Finding(OK, "nodes", f"{len(usable)} with Linux")
    yield _kernels(usable)
    directories = {d for node in usable if (d := _kubelet_directory(node))}
    if directories:
        wanted = ", ".join(sorted(directories))
        yield Finding(
            WARN,
            "kubelet",
            f"its directory here is {wanted}",
            "no volume would be mounted",
            f"helm … --set node.kubeletDir={wanted}",
        )


def _kernels(nodes: Sequence[Mapping[str, Any]]) -> Finding:
    by_kernel = {_name(n): str(_info(n).get("kernelVersion") or "?") for n in nodes}
    old = _below(by_kernel, LEAST_KERNEL)
    if old:
        return Finding(
            FAIL,
            "kernels",
            old,
            "mounts there are not supported",
            "Linux 5.15 or later, or keep Datasets off these nodes (spec.nodeAffinity)",
        )
    without = _below(by_kernel, PASSTHROUGH_KERNEL)
    if without:
        return Finding(
            WARN,
            "kernels",
            without,
            "no Passthrough there: big files are read through the mount process",
            "Linux 6.9 or later; all else works",
        )
    return Finding(OK, "kernels", ", ".join(sorted(set(by_kernel.values()))))


def _below(by_kernel: Mapping[str, str], least: tuple[int, int]) -> str:
    """`a (5.4.0), b (5.10.1)`, and how many more."""
    found = [f"{n} ({k})" for n, k in sorted(by_kernel.items()) if numbers(k) < least]
    more = f" and {len(found) - NAMES_SHOWN} more" if len(found) > NAMES_SHOWN else ""
    return ", ".join(found[:NAMES_SHOWN]) + more


def _kubelet_directory(node: Mapping[str, Any]) -> str:
    """Where it is not /var/lib/kubelet."""
    if "+k0s" in str(_info(node).get("kubeletVersion")):
        return "/var/lib/k0s/kubelet"
    if "microk8s.io/cluster" in (node["metadata"].get("labels") or {}):
        return "/var/snap/microk8s/common/var/lib/kubelet"
    return ""


def _rights(facts: Facts) -> Iterator[Finding]:
    purposes = dict.fromkeys(right.purpose for right in facts.rights)
    for purpose in purposes:
        lacking = [str(r) for r, ok in facts.rights.items() if r.purpose == purpose and not ok]
        what = f"rights to {purpose.value}"
        if not lacking:
            yield Finding(OK, what, "all there")
        elif purpose.is_for_installing and facts.is_installed:
            yield Finding(OK, what, "not all there, and not needed: it is installed")
        else:
            level = FAIL if purpose.is_needed else WARN
            found = f"missing: {'; '.join(lacking)}"
            yield Finding(level, what, found, purpose.costs, "Ask an administrator")


def _pod_security(facts: Facts) -> Finding:
    what = f"PodSecurity of {SYSTEM_NAMESPACE}"
    label = f"kubectl label namespace {SYSTEM_NAMESPACE} {ENFORCE}=privileged"
    costs = "the node plugin, which is privileged, is refused"
    if why := facts.refused.get("system"):
        return Finding(WARN, what, why, "", f"If node plugins do not start: {label}")
    if facts.system is None:
        return Finding(OK, what, f"no namespace yet; where pods are restricted by default: {label}")
    level = (facts.system["metadata"].get("labels") or {}).get(ENFORCE)
    if level in (None, "privileged"):
        return Finding(OK, what, level or "not set")
    return Finding(FAIL, what, f"enforces {level}", costs, label)


def _installed(facts: Facts) -> Iterator[Finding]:
    yield from (_crd(facts, name, model) for name, model in CRDS.items())
    if not facts.is_installed:
        return
    if why := facts.refused.get("driver"):
        yield Finding(WARN, "CSI driver", why)
    elif facts.driver is None:
        costs = "no volume is mounted"
        yield Finding(FAIL, "CSI driver", f"no CSIDriver {API_GROUP}", costs, INSTALL)
    else:
        yield Finding(OK, "CSI driver", API_GROUP)
    yield _running(facts, "operators", "operator", facts.operators, "replicas", "readyReplicas")
    yield _running(
        facts, "plugins", "node plugins", facts.plugins, "desiredNumberScheduled", "numberReady"
    )


def _crd(facts: Facts, name: str, model: type[Any]) -> Finding:
    if why := facts.refused.get("crds"):
        return Finding(WARN, name, why, "", "Ask who may get customresourcedefinitions")
    crd = facts.crds.get(name)
    if crd is None:
        return Finding(WARN, name, "not installed", "there are no Datasets yet", INSTALL)
    version = API_VERSION.rpartition("/")[2]
    served = {v["name"]: v for v in crd["spec"]["versions"] if v.get("served")}
    if version not in served:
        found = f"serves {', '.join(served) or 'nothing'}, not {version}"
        todo = "helm upgrade, or another cacheop"
        return Finding(FAIL, name, found, "this command cannot speak with it", todo)
    there = _fields(served[version])
    missing, more = sorted(set(tree_of(model)) - there), sorted(there - set(tree_of(model)))
    if missing:
        found = f"is older than this command: no {', '.join(missing)}"
        todo = "kubectl apply --server-side -f crds/, or helm upgrade"
        return Finding(WARN, name, found, "those fields are refused", todo)
    if more:
        found = f"is newer than this command: has {', '.join(more)}"
        return Finding(WARN, name, found, "", "pip install -U cacheop")
    return Finding(OK, name, version)


def _fields(version: Mapping[str, Any]) -> set[str]:
    schema = (version.get("schema") or {}).get("openAPIV3Schema") or {}
    spec = (schema.get("properties") or {}).get("spec") or {}
    return set(spec.get("properties") or {})


def _running(
    facts: Facts,
    read: str,
    what: str,
    objects: Sequence[Mapping[str, Any]],
    wanted: str,
    ready: str,
) -> Finding:
    if why := facts.refused.get(read):
        return Finding(WARN, what, why)
    if not objects:
        return Finding(FAIL, what, f"none in {SYSTEM_NAMESPACE}", "nothing happens", INSTALL)
    status = objects[0].get("status") or {}
    have, want = int(status.get(ready) or 0), int(status.get(wanted) or 0)
    found = f"{have} of {view.count(want)} ready"
    if have >= max(want, 1):
        return Finding(OK, what, found)
    kind = "deployment" if read == "operators" else "daemonset"
    name = objects[0]["metadata"]["name"]
    todo = f"kubectl -n {SYSTEM_NAMESPACE} describe {kind} {name}"
    return Finding(WARN if have else FAIL, what, found, "Datasets wait", todo)


def _info(node: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (node.get("status") or {}).get("nodeInfo") or {}
    return found


def _name(node: Mapping[str, Any]) -> str:
    return str(node["metadata"]["name"])
