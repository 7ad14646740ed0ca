"""`python -m cache_worker pod`: what a worker's pod starts, and how it reads what Kubernetes gives.

The ConfigMap (/config) and the pod's environment become CONFIG; then this process becomes the
supervisor. The worker looks at the ConfigMap again when it changes (configuring.py). Tokens and
the origins' Secrets are files that are read where they are.
"""

from __future__ import annotations

import json
import os
import sys

from cacheop.api.errors import UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

CONFIG_DIR, TOKEN_DIR, SECRETS_DIR = "/config", "/token", "/secrets"
CLAIMS_DIR, LOCAL_SCHEMES = "/pvc", frozenset({"file", "local", "memory", "simplecache"})
CACHE_DIR, CONFIG = "/cache", "/run/cacheop/config.json"
PEERS_PORT, CLIENTS_PORT, HTTP_PORT = 7070, 7071, 9090
FILES = ("dataset.json", "worker.json")


def config_of(
    dataset: Mapping[str, Any], worker: Mapping[str, Any], environment: Mapping[str, str]
) -> dict[str, Any]:
    """CONFIG of a worker's pod; pure. Raises UserError."""
    try:
        metadata, node = dataset["metadata"], environment["CACHEOP_NODE"]
        namespace, name, ip = metadata["namespace"], metadata["name"], environment["CACHEOP_POD_IP"]
        host, any_host = (f"[{ip}]", "[::]") if ":" in ip else (ip, "0.0.0.0")  # noqa: S104
        redis = worker.get("redis")
        members: dict[str, Any] = {}
        if redis:
            password = f"{environment.get('CACHEOP_TOKEN_DIR') or TOKEN_DIR}/redis"
            members = {"redis": {**redis, "password_file": password}}
        return {
            "dataset": document_of(dataset, suspended=bool(worker.get("suspend"))),
            "namespace": namespace,
            "name": name,
            "uid": metadata["uid"],
            "node": node,
            "root": environment.get("CACHEOP_CACHE") or CACHE_DIR,
            "secrets": environment.get("CACHEOP_SECRETS_DIR") or SECRETS_DIR,
            "http": f"{host}:{HTTP_PORT}",
            # At the pod's 127.0.0.1 too, where `kubectl port-forward` and `cacheop top` come to;
            # a pod with such an address has no network of its own.
            "tcp": f"{host if ip.startswith('127.') else any_host}:{CLIENTS_PORT}",
            "token_file": f"{environment.get('CACHEOP_TOKEN_DIR') or TOKEN_DIR}/control",
            "zone": (worker.get("zones") or {}).get(node, ""),
            "peers": f"{host}:{PEERS_PORT}" if members else "",
            "members": members,
            "holder": True,
            "follow": environment.get("CACHEOP_CONFIG_DIR") or CONFIG_DIR,
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"what the operator gave the pod is not whole: {error!r}",
            hint="ConfigMap and DaemonSet of the Dataset are the operator's to mend",
        ) from error


def document_of(dataset: Mapping[str, Any], *, suspended: bool = False) -> dict[str, Any]:
    """The Dataset as its worker in a pod reads it; pure. Raises UserError, KeyError, TypeError."""
    spec, metadata = dataset["spec"], dataset["metadata"]
    return {
        "apiVersion": dataset["apiVersion"],
        "kind": dataset["kind"],
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
        "spec": {
            **spec,
            "mounts": [_mount(mount) for mount in spec["mounts"]],
            "suspend": suspended or bool(spec.get("suspend")),
        },
    }


def _mount(mount: Mapping[str, Any]) -> dict[str, Any]:
    """A claim is read where the kubelet mounts it; other files of the pod or node are no origin."""
    point = str(mount["mountPoint"])
    scheme, _, rest = point.partition("://")
    if scheme == "pvc":
        return {**mount, "mountPoint": f"file://{CLAIMS_DIR}/{rest}"}
    if scheme in LOCAL_SCHEMES or not rest:
        raise UserError(
            f"mountPoint {point} is not allowed on Kubernetes",
            hint="Put the files into a PersistentVolumeClaim and write pvc://CLAIM/PATH",
        )
    return dict(mount)


def rewrite(config: str | os.PathLike[str], directory: str) -> dict[str, Any]:
    """CONFIG, made anew of the ConfigMap mounted at `directory`. Raises UserError."""
    try:
        documents = []
        for name in FILES:
            with open(f"{directory}/{name}", encoding="utf-8") as file:
                documents.append(json.load(file))
        made = config_of(documents[0], documents[1], os.environ)
        path = os.fspath(config)
        with open(f"{path}.new", "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o600)
            json.dump(made, file)
        os.replace(f"{path}.new", path)
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise UserError(f"cannot make the worker's configuration: {error}") from error
    return made


def fingerprint(directory: str) -> tuple[tuple[int, int, int], ...]:
    """Another one when the ConfigMap was changed."""
    found = []
    for name in FILES:
        try:
            stat = os.stat(f"{directory}/{name}")
        except OSError:
            found.append((0, 0, 0))
        else:
            found.append((stat.st_ino, stat.st_mtime_ns, stat.st_size))
    return tuple(found)


def main(arguments: list[str]) -> int:  # noqa: RET503 - execv does not return
    """Does not return unless something is wrong: exit code 2."""
    if arguments:
        sys.stderr.write("usage: python -m cache_worker pod\n")
        return 2
    config = os.environ.get("CACHEOP_CONFIG") or CONFIG
    try:
        rewrite(config, os.environ.get("CACHEOP_CONFIG_DIR") or CONFIG_DIR)
    except UserError as error:
        sys.stderr.write(f"cacheop pod: {error}\n")
        return 2
    sys.stderr.flush()
    # Process 1 of the container is the supervisor itself: the kubelet's signals are for it.
    os.execv(sys.executable, [sys.executable, "-P", "-m", "cache_worker", "supervise", config])  # noqa: S606
