"""CONFIG: the one file that tells the processes of a worker what they are."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cache_worker.members import settings as members
from cacheop.api.dataset import parse_dataset, to_document
from cacheop.api.errors import UserError

if TYPE_CHECKING:
    from cacheop.api.dataset import Dataset


@dataclass(frozen=True, slots=True)
class MountTarget:
    """A directory at which the Dataset is mounted."""

    target: Path
    mode: str = ""
    """Empty = the Dataset's own `spec.mount.mode`."""
    version: str = ""
    """Empty = the Dataset's, else the current one."""


@dataclass(slots=True)
class Settings:
    """What `cacheop up` (or the operator) decided for one Dataset on one node.

    Nothing of it changes but `dataset`, which `configure` replaces: look there, keep no part of it.
    """

    path: Path
    """CONFIG itself."""
    dataset: Dataset
    namespace: str
    name: str
    node: str
    root: Path
    """The Dataset's cache directory on this node: <cache>/<namespace>/<dataset>/<uid>."""
    secrets: Path
    """Directory with <secret name>/<key> files."""
    http: str = "127.0.0.1:0"
    """host:port of /metrics and /healthz; port 0 picks one, status tells it."""
    tcp: str = ""
    """host:port of the framed protocol over TCP; empty = unix sockets only."""
    token_file: Path | None = None
    mounts: tuple[MountTarget, ...] = field(default=())
    mount_processes: int = 0
    """How many processes serve a mount; 0 = as many as its mode and this machine ask for."""
    follow: str | None = None
    """Directory of the ConfigMap that CONFIG was made of; None = not on Kubernetes."""
    cluster: members.Cluster = field(default=members.Cluster())
    """Fields zone, peers, members and redis_admin: see cache_worker/members/settings.py."""

    def replace_dataset(self, dataset: Dataset) -> None:
        """Serve by another spec; in CONFIG too, for the children and for who comes after us."""
        self.dataset = dataset
        raw = json.loads(self.path.read_text())
        raw["dataset"] = to_document(dataset)
        new = self.path.with_suffix(".new")
        new.touch(mode=0o600)
        new.write_text(json.dumps(raw))
        new.replace(self.path)


def load(path: str | Path) -> Settings:
    """Read CONFIG. Raises UserError if it is not there or not whole."""
    path = Path(path)
    try:
        raw = json.loads(path.read_text())
        return Settings(
            path=path,
            dataset=parse_dataset(raw["dataset"]),
            namespace=raw["namespace"],
            name=raw["name"],
            node=raw["node"],
            root=Path(raw["root"]),
            secrets=Path(raw["secrets"]),
            http=raw.get("http", "127.0.0.1:0"),
            tcp=raw.get("tcp", ""),
            token_file=Path(raw["token_file"]) if raw.get("token_file") else None,
            mounts=tuple(
                MountTarget(Path(m["target"]), m.get("mode", ""), m.get("version", ""))
                for m in raw.get("mounts", [])
            ),
            mount_processes=int(raw.get("mount_processes") or 0),
            follow=raw.get("follow"),
            cluster=members.parse(raw, raw["node"]),
        )
    except (OSError, ValueError, KeyError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"cannot read the worker's configuration {path}: {error!r}") from error
