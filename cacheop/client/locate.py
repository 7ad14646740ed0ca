"""Where a Dataset is read from on this machine: the steps, in order, and what each found."""

from __future__ import annotations

import logging
import os
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cacheop import local
from cacheop.api import names
from cacheop.api.errors import ProtocolError, StoreError, UserError, WorkerUnavailable
from cacheop.api.index import Index
from cacheop.client.connection import connect_first, connect_unix
from cacheop.client.dataset import CachedDataset
from cacheop.client.delegate import DelegatedDataset, Part
from cacheop.client.endpoints import endpoints
from cacheop.client.link import QUICK, Patience, WorkerLink
from cacheop.client.store import LocalStore, map_file
from cacheop.client.tree import Tree
from cacheop.client.url import DEFAULT_NAMESPACE, Target

if TYPE_CHECKING:
    from cacheop.client.origin import UnchangedOrigin

log = logging.getLogger("cacheop")

INDEX_PIECE_BYTES = 32 << 20
LOCAL_UID = "local"
SERVICE_ACCOUNT_NAMESPACE = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

Source = CachedDataset | DelegatedDataset

_warned: set[str] = set()  # one warning per process and Dataset


@dataclass(frozen=True, slots=True)
class Options:
    """The storage options of the file system; empty = see the environment."""

    mount: str = ""
    cache: str = ""
    endpoint: str = ""
    token: str = field(default="", repr=False)
    fallback: bool = False
    origin: str = ""
    origin_options: dict[str, Any] = field(default_factory=dict)
    patience: Patience | None = None

    @property
    def waits(self) -> Patience:
        """What was given, else what suits."""
        return self.patience or (QUICK if self.fallback else Patience())

    def resolved(self) -> Options:
        """With the environment's places where no option names one."""
        if self.mount or self.cache or self.endpoint:
            token = self.token or os.environ.get(names.ENV_TOKEN, "")
            mount, cache, endpoint = self.mount, self.cache, self.endpoint
        else:
            mount = os.environ.get(names.ENV_MOUNT, "")
            cache = os.environ.get(names.ENV_CACHE, "")
            endpoint = os.environ.get(names.ENV_ENDPOINT, "")
            token = self.token or os.environ.get(names.ENV_TOKEN, "")
        return replace(self, mount=mount, cache=cache, endpoint=endpoint, token=token)


def attach(target: Target, options: Options) -> Source:
    """Where `target` is read from. WorkerUnavailable, with each step, when it is nowhere."""
    options = options.resolved()
    tried: list[str] = []
    found = _mount(target, options.mount, tried)
    if found is None:
        found = _cache(target, options, tried)
    if found is None:
        found = _endpoint(target, options, tried)
    if found is None and options.fallback:
        found = _origin(target, options, tried)
    if found is None:
        steps = "; ".join(tried)
        raise WorkerUnavailable(
            f"no worker for the Dataset {target}: {steps}",
            hint="Start one with `cacheop up -f DATASET.yaml`, or say where it is with "
            f"{names.ENV_CACHE} or {names.ENV_ENDPOINT}; fallback=True reads the origin",
        )
    return found


def attach_worker(target: Target, options: Options) -> CachedDataset:
    """The worker of `target`, also where its files are read through a mount. WorkerUnavailable."""
    given = replace(options.resolved(), mount="")
    tried: list[str] = []
    found = _cache(target, given, tried) or _endpoint(target, given, tried)
    if not isinstance(found, CachedDataset):
        raise WorkerUnavailable(
            f"no worker for the Dataset {target}: {'; '.join(tried)}",
            hint=f"Say where it is with {names.ENV_CACHE}, or {names.ENV_ENDPOINT} and "
            f"{names.ENV_TOKEN}",
        )
    return found


def own_namespace() -> str:
    """Of Datasets that are named without one: the pod's on Kubernetes, else the default."""
    named = os.environ.get(names.ENV_NAMESPACE)
    if named or names.ENV_IN_CLUSTER not in os.environ:
        return named or DEFAULT_NAMESPACE
    try:
        return Path(SERVICE_ACCOUNT_NAMESPACE).read_text().strip() or DEFAULT_NAMESPACE
    except OSError:  # automountServiceAccountToken: false
        return DEFAULT_NAMESPACE


def started_here() -> list[Target]:
    """The Datasets that `cacheop up` runs on this machine."""
    return [Target(record.namespace, record.name, "") for record in local.all_records()]


def _mount(target: Target, mount: str, tried: list[str]) -> Source | None:
    if not mount:
        tried.append(f"{names.ENV_MOUNT} is not set")
    elif target.version:
        tried.append(f"the mount {mount} is of one version and cannot give @{target.version}")
    elif not Path(mount).is_dir():
        tried.append(f"the mount {mount} is not a directory")
    else:
        from fsspec.implementations.local import LocalFileSystem

        return DelegatedDataset(
            (Part("", LocalFileSystem(), os.path.abspath(mount)),),
            waits=False,
        )
    return None


def _cache(target: Target, options: Options, tried: list[str]) -> Source | None:
    if options.cache:
        root = Path(options.cache)
        if not (root / names.CLIENT_SOCKET).parent.is_dir():
            root = root / target.namespace / target.dataset / LOCAL_UID
        if not root.is_dir():
            tried.append(f"the cache directory {options.cache} has no such Dataset")
            return None
        return _local(target, options, root, options.waits.attach_seconds, tried)
    if options.endpoint or names.ENV_IN_CLUSTER in os.environ:
        tried.append(f"{names.ENV_CACHE} is not set")
        return None
    record = local.find(target.namespace, target.dataset)
    if record is None:
        looked = ", ".join(str(path) for path in local.run_dirs())
        tried.append(f"`cacheop up` has not started it here (no record in {looked})")
        return None
    for node in record.nodes:
        alive = local.is_alive(node)
        seconds = options.waits.attach_seconds if alive else 0.0
        found = _local(target, options, node.root, seconds, tried)
        if found is not None:
            return found
    return None


def _local(
    target: Target, options: Options, root: Path, seconds: float, tried: list[str]
) -> Source | None:
    """Through the client socket in `root`; None if no worker of that Dataset answers there."""
    path = root / names.CLIENT_SOCKET
    link = WorkerLink(str(path), lambda: connect_unix(path), target.version, options.waits)
    bound = _open(target, link, seconds, tried)
    if bound is None:
        return None
    try:
        store = LocalStore(root, bound)
    except StoreError as error:
        # The worker answers, so it can give the bytes even if its files are out of our reach.
        log.warning("cacheop: %s; reading through the socket of the worker instead", error)
        return _through(target, options, link)
    return CachedDataset(Tree(store.index), link, store, _instead(target, options, store.index))


def _endpoint(target: Target, options: Options, tried: list[str]) -> Source | None:
    token = options.token
    in_cluster = names.ENV_IN_CLUSTER in os.environ and bool(token)
    addresses = endpoints(target, options.endpoint, in_cluster=in_cluster)
    if not addresses:
        tried.append(f"{names.ENV_ENDPOINT} is not set")
        if names.ENV_IN_CLUSTER in os.environ:
            tried.append(f"{names.ENV_TOKEN} is not set, which the workers' Services ask for")
        return None
    if not token:
        raise UserError(
            f"no token for the worker at {addresses[0]}", hint=f"Set {names.ENV_TOKEN} or token="
        )
    name = " or ".join(addresses)
    link = WorkerLink(name, lambda: connect_first(addresses, token), target.version, options.waits)
    if _open(target, link, options.waits.attach_seconds, tried) is None:
        return None
    return _through(target, options, link)


def _open(
    target: Target, link: WorkerLink, seconds: float, tried: list[str]
) -> dict[str, Any] | None:
    """Bind `link`, if it is the right Dataset that answers."""
    try:
        bound = link.open(seconds)
        hello = link.call("hello", {}).meta
    except WorkerUnavailable as error:
        tried.append(error.message)
        return None
    served = (hello.get("namespace"), hello.get("dataset"))
    if served != (target.namespace, target.dataset):
        link.close()
        tried.append(f"{link.name} serves the Dataset {served[0]}/{served[1]}")
        return None
    return bound


def _through(target: Target, options: Options, link: WorkerLink) -> CachedDataset:
    """Everything over the link: the index is fetched into an unnamed file of ours and mapped."""
    with tempfile.TemporaryFile(prefix="cacheop-index-") as file:
        at, size = 0, 1
        while at < size:
            ask = {"version": link.version, "offset": at, "length": INDEX_PIECE_BYTES}
            frame = link.call("manifest", ask)
            size = int(frame.meta["size"])
            if not frame.payload:
                raise ProtocolError(f"{link.name} sent an index of {at} instead of {size} bytes")
            file.write(frame.payload)
            at += len(frame.payload)
        file.flush()
        index = Index(map_file(Path(f"/proc/self/fd/{file.fileno()}")))
    if index.version != link.version:
        raise ProtocolError(f"{link.name} sent version {index.version}, not {link.version}")
    return CachedDataset(Tree(index), link, None, _instead(target, options, index))


def _instead(target: Target, options: Options, index: Index) -> UnchangedOrigin | None:
    """What is read when the worker goes away, if that is wanted."""
    if not options.fallback:
        return None
    from cacheop.client.origin import UnchangedOrigin

    def open_parts(because: WorkerUnavailable) -> tuple[Part, ...]:
        tried = [because.message]
        parts = _origin_parts(target, options, tried)
        if parts is None:
            raise WorkerUnavailable("; ".join(tried), hint=because.hint)
        return parts

    return UnchangedOrigin(index, open_parts)


def _origin(target: Target, options: Options, tried: list[str]) -> Source | None:
    if target.version:
        tried.append(f"the origin has no version @{target.version}")
        return None
    parts = _origin_parts(target, options, tried)
    return DelegatedDataset(parts, waits=True) if parts is not None else None


def _origin_parts(target: Target, options: Options, tried: list[str]) -> tuple[Part, ...] | None:
    """The origin's file systems, with a warning that says what was tried before."""
    from cacheop.client.origin import parts_of_record, parts_of_url

    if options.origin:
        parts = parts_of_url(options.origin, options.origin_options)
    else:
        record = local.find(target.namespace, target.dataset)
        if record is None:
            tried.append("the origin is not known (no record of `cacheop up`, no origin=)")
            return None
        parts = parts_of_record(record, options.origin_options)
    if str(target) not in _warned:
        _warned.add(str(target))
        log.warning(
            "cacheop: no worker for %s (%s); reading the origin itself, uncached",
            target,
            "; ".join(tried),
        )
    return parts
