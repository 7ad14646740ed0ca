"""The private directory of a Dataset: the CONFIG of each node, secrets, tokens, passwords."""

from __future__ import annotations

import json
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cacheop import local
from cacheop.api.tokens import client_token
from cacheop.cli import checks
from cacheop.cli import cluster as clusters

if TYPE_CHECKING:
    from cacheop.api.dataset import Dataset
    from cacheop.cli.cluster import Cluster
    from cacheop.cli.files import Documents
    from cacheop.cli.up import Options
    from cacheop.local import RunRecord

LOCAL_UID = "local"
PEERS_HOST = "127.0.0.1"


def node_roots(cache: Path, namespace: str, name: str, nodes: int) -> tuple[Path, ...]:
    """The cache directory of each node; pure."""
    below = Path(namespace, name, LOCAL_UID)
    if nodes == 1:
        return (cache / below,)
    return tuple(cache / clusters.node_name(k) / below for k in range(nodes))


def node_address(option: str, text: str, node: int) -> str:
    """A fixed port is node 0's, the others take the following ones."""
    if not text:
        return ""
    host, port = checks.address(option, text)
    return f"{host}:{port + node if port else 0}"


def read(record: RunRecord) -> list[dict[str, Any]]:
    """What the nodes of `record` were started with."""
    return [json.loads(node.config.read_text()) for node in record.nodes]


def write(
    record: RunRecord,
    dataset: Dataset,
    documents: Documents,
    options: Options,
    roots: tuple[Path, ...],
    cluster: Cluster | None,
) -> list[Path]:
    """Make the directory anew; the CONFIG files in the order of the nodes."""
    from cacheop import secrets as secret_files
    from cacheop.api.dataset import to_document

    directory = record.directory
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(mode=0o700)
    secret_files.write_secrets(dataset, documents.secrets, directory / "secrets")
    token_file = _write_tokens(record, options) if options.listen or cluster else ""
    shared = _share(record, cluster, len(roots))
    mounts = [{"target": record.mount, "mode": options.mount_mode}] if record.mount else []
    configs = []
    for k, root in enumerate(roots):
        config = {
            "dataset": to_document(dataset),
            "namespace": record.namespace,
            "name": record.name,
            "uid": LOCAL_UID,
            "node": clusters.node_name(k),
            "root": str(root),
            "secrets": str(directory / "secrets"),
            "http": node_address("--http", options.http, k),
            "tcp": node_address("--listen", options.listen, k),
            "token_file": token_file,
            "mounts": mounts if k == 0 else [],
            **shared[k],
        }
        path = directory / f"{clusters.node_name(k)}.json"
        local.replace_file(path, json.dumps(config, indent=1) + "\n", mode=0o600)
        configs.append(path)
    return configs


def _write_tokens(record: RunRecord, options: Options) -> str:
    """One control token for all nodes; the file that has it."""
    token, path = secrets.token_hex(32), record.directory / "token"
    local.replace_file(path, token + "\n", mode=0o600)
    if options.listen:
        local.replace_file(record.client_token, client_token(token) + "\n", mode=0o600)
    return str(path)


def _share(record: RunRecord, cluster: Cluster | None, nodes: int) -> list[dict[str, Any]]:
    """What the nodes are told of each other, with the passwords of it written."""
    if cluster is None:
        return [{}] * nodes
    directory = record.directory
    if cluster.redis is not None:
        passwords = {clusters.password_file(directory): secrets.token_hex(32)}
        if cluster.redis.logs_in:
            passwords[clusters.admin_password_file(directory)] = cluster.redis.password
        for path, password in passwords.items():
            local.replace_file(path, password + "\n", mode=0o600)
    addresses = [f"{PEERS_HOST}:{port}" for port in checks.free_ports(PEERS_HOST, nodes)]
    return clusters.fields(cluster, addresses, directory, record.namespace, record.name)
