"""What a volume asks for: its attributes and the kubelet's pod info, checked. Pure.

The namespace of an inline volume is always the pod's, as the kubelet says it; that of a persistent
one is in its PersistentVolume, which only the operator makes. Who may create pods in a namespace
may read and fill its Datasets.
"""

from __future__ import annotations

import re

from cache_worker.csi.refusals import FAILED_PRECONDITION, PERMISSION_DENIED, Refusal, invalid
from cacheop.api import mount_modes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

EPHEMERAL = "csi.storage.k8s.io/ephemeral"
POD_NAMESPACE = "csi.storage.k8s.io/pod.namespace"
_KUBELETS = ("csi.storage.k8s.io/", "storage.kubernetes.io/")
_CACHE = frozenset({"cache", "uid"})
_INLINE = frozenset({"dataset", "namespace", "version", "waitFor", "access", "mode"})
_PERSISTENT = _INLINE | {"uid"}
CACHED, COMPLETE = "cached", "complete"
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", re.ASCII)
_VERSION = re.compile(r"[0-9a-f]{8,64}", re.ASCII)


class CacheWish:
    """A worker wants its directory, to write."""

    __slots__ = ("name", "namespace", "uid")

    def __init__(self, namespace: str, name: str, uid: str) -> None:
        self.namespace = namespace
        self.name = name
        self.uid = uid


class DatasetWish:
    """A pod wants to read a Dataset."""

    __slots__ = ("is_client", "mode", "name", "namespace", "uid", "version", "wait_for")

    def __init__(
        self,
        namespace: str,
        name: str,
        *,
        uid: str = "",
        version: str = "",
        wait_for: str = "",
        mode: str = "",
        is_client: bool = False,
    ) -> None:
        self.namespace = namespace
        self.name = name
        self.uid = uid
        """"" = of the one whose worker is alive."""
        self.version = version
        """"" = the Dataset's, or the current one."""
        self.wait_for = wait_for
        """CACHED, COMPLETE, or "": as soon as it can be read."""
        self.mode = mode
        """"" = the Dataset's."""
        self.is_client = is_client
        """It gets socket and store to read by fsspec, not a mount."""


def read(attributes: Mapping[str, str]) -> CacheWish | DatasetWish:
    """The wish of a volume with these attributes. Raises Refusal."""
    ephemeral, pod_namespace = attributes.get(EPHEMERAL), attributes.get(POD_NAMESPACE, "")
    if ephemeral not in {"true", "false"} or not pod_namespace:
        raise Refusal(
            FAILED_PRECONDITION,
            "the kubelet does not say whose pod the volume is for",
            hint="The CSIDriver object cacheop.io needs podInfoOnMount: true; the chart has it",
        )
    given = {key: value for key, value in attributes.items() if not key.startswith(_KUBELETS)}
    namespace = _label("namespace of the pod", pod_namespace)
    if "cache" in given:
        _only(given, _CACHE, "a cache directory")
        if ephemeral != "true":
            raise invalid("a cache directory is for inline volumes of workers only")
        return CacheWish(namespace, _label("cache", given["cache"]), _uid(given.get("uid", "")))
    if "dataset" not in given:
        raise invalid(
            "the volume does not say which Dataset",
            hint="volumeAttributes: {dataset: NAME}, or use the PersistentVolumeClaim NAME",
        )
    return _dataset(given, namespace, is_inline=ephemeral == "true")


def _dataset(given: Mapping[str, str], namespace: str, *, is_inline: bool) -> DatasetWish:
    _only(given, _INLINE if is_inline else _PERSISTENT, "a Dataset")
    name = _label("dataset", given["dataset"])
    uid = ""
    if is_inline:
        if given.get("namespace", namespace) != namespace:
            raise Refusal(
                PERMISSION_DENIED,
                f"an inline volume reads Datasets of its own namespace {namespace} only, "
                f"not {given['namespace']}/{name}",
                hint="Share it with spec.shareWith, then use the PersistentVolumeClaim",
            )
    else:
        namespace, uid = _label("namespace", given.get("namespace", "")), _uid(given.get("uid", ""))
    version, mode = given.get("version", ""), given.get("mode", "")
    wait_for, access = given.get("waitFor", ""), given.get("access", "")
    if version and not _VERSION.fullmatch(version):
        raise invalid(f"version {version!r} is none", hint="`cacheop versions` lists them")
    if wait_for not in {"", CACHED, COMPLETE}:
        raise invalid(f"waitFor {wait_for!r} is not known", hint="Known are cached and complete")
    if access not in {"", "mount", "client"}:
        raise invalid(f"access {access!r} is not known", hint="Known are mount and client")
    if mode not in {"", *mount_modes.WISHES}:
        raise invalid(f"{mode!r} is no mode", hint=f"Known are {', '.join(mount_modes.WISHES)}")
    return DatasetWish(
        namespace,
        name,
        uid=uid,
        version=version,
        wait_for=wait_for,
        mode=mode,
        is_client=access == "client",
    )


def is_label(text: str) -> bool:
    """Whether `text` is a DNS label, and so a safe name of a directory."""
    return _LABEL.fullmatch(text) is not None


def _only(given: Mapping[str, str], known: frozenset[str], what: str) -> None:
    if unknown := sorted(set(given) - known):
        raise invalid(
            f"volume attribute {unknown[0]!r} is not known", hint=f"{what} has {sorted(known)}"
        )


def _label(what: str, text: str) -> str:
    if not is_label(text):
        raise invalid(f"{what} {text!r} is not a name of Kubernetes (a DNS label)")
    return text


def _uid(text: str) -> str:
    if not is_label(text):
        raise invalid(f"uid {text!r} is not one of a Dataset", hint="The operator sets it")
    return text
