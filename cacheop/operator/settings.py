"""What the operator is told: environment variables, and files for what is secret."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cacheop.api.errors import UserError
from cacheop.api.parse import read_object
from cacheop.api.scheduling import Toleration
from cacheop.operator.tokens import MasterKey

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cacheop.api.model import Problem

KEY_BYTES_MIN = 32


@dataclass(frozen=True, slots=True)
class WorkerDefaults:
    """What every worker pod gets unless its Dataset says otherwise."""

    image: str = "cacheop:latest"
    image_pull_policy: str = "IfNotPresent"
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    pull_secrets: tuple[str, ...] = ()
    priority_class: str = ""
    tolerations: tuple[Toleration, ...] | None = None
    """None: every taint."""
    cpu_request: str = "20m"
    memory: str = "512Mi"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the operator is told."""

    master: MasterKey
    namespace: str = "cacheop-system"
    """Where the operator and the node plugin run."""
    namespaces: tuple[str, ...] = ()
    """The only ones it looks after; empty means all."""
    identity: str = ""
    """Its own name in the Lease."""
    worker: WorkerDefaults = WorkerDefaults()
    redis_url: str = ""
    """redis://host:port/db; empty means that workers ask each other only."""
    redis_admin: str = ""
    """Who may make users there; empty = default."""
    redis_password_file: Path | None = None
    drain_seconds: float = 300.0
    poll_seconds: float = 10.0
    secret_seconds: float = 60.0
    lease_seconds: float = 10.0
    http_port: int = 8080

    def serves(self, namespace: str) -> bool:
        """Whether Datasets of `namespace` are looked after."""
        return not self.namespaces or namespace in self.namespaces


def from_environment(environment: Mapping[str, str] = os.environ) -> Settings:
    """Settings of a pod. UserError names what is missing."""
    key_file = environment.get("CACHEOP_MASTER_KEY_FILE", "/etc/cacheop/master/key")
    password = environment.get("CACHEOP_REDIS_PASSWORD_FILE", "")
    listed = environment.get("CACHEOP_WATCH_NAMESPACES", "")
    numbers = {
        name: _number(environment, variable, default)
        for name, variable, default in (
            ("drain_seconds", "CACHEOP_DRAIN_SECONDS", 300.0),
            ("poll_seconds", "CACHEOP_POLL_SECONDS", 10.0),
            ("secret_seconds", "CACHEOP_SECRET_SECONDS", 60.0),
            ("lease_seconds", "CACHEOP_LEASE_SECONDS", 10.0),
        )
    }
    return Settings(
        master=_master(Path(key_file), int(_number(environment, "CACHEOP_TOKEN_EPOCH", 1))),
        namespace=environment.get("CACHEOP_NAMESPACE", "cacheop-system"),
        namespaces=tuple(name.strip() for name in listed.split(",") if name.strip()),
        identity=environment.get("CACHEOP_IDENTITY") or f"{socket.gethostname()}-{os.getpid()}",
        worker=_worker(environment),
        redis_url=environment.get("CACHEOP_REDIS_URL", ""),
        redis_admin=environment.get("CACHEOP_REDIS_ADMIN", ""),
        redis_password_file=Path(password) if password else None,
        http_port=int(_number(environment, "CACHEOP_HTTP_PORT", 8080)),
        **numbers,
    )


def _master(path: Path, epoch: int) -> MasterKey:
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise UserError(
            f"cannot read the master key {path}: {error.strerror}",
            hint="Set CACHEOP_MASTER_KEY_FILE to a file of 32 random bytes or more",
        ) from error
    if len(key) < KEY_BYTES_MIN:
        raise UserError(
            f"the master key {path} has {len(key)} bytes, at least {KEY_BYTES_MIN} are needed",
            hint="Make one: head -c 32 /dev/urandom | base64",
        )
    return MasterKey(key, epoch)


def _worker(environment: Mapping[str, str]) -> WorkerDefaults:
    """CACHEOP_WORKER is JSON; the chart writes it."""
    raw = _json(environment, "CACHEOP_WORKER")
    return WorkerDefaults(
        image=environment.get("CACHEOP_IMAGE", "cacheop:latest"),
        image_pull_policy=environment.get("CACHEOP_IMAGE_PULL_POLICY", "IfNotPresent"),
        labels=dict(raw.get("labels") or {}),
        annotations=dict(raw.get("annotations") or {}),
        pull_secrets=tuple(raw.get("pullSecrets") or ()),
        priority_class=raw.get("priorityClass") or "",
        tolerations=_tolerations(raw.get("tolerations")),
        cpu_request=raw.get("cpu") or "20m",
        memory=raw.get("memory") or "512Mi",
    )


def _tolerations(raw: Any) -> tuple[Toleration, ...] | None:
    if raw is None:
        return None
    problems: list[Problem] = []
    found = tuple(
        read_object(Toleration, item, ("worker.tolerations", k), problems)
        for k, item in enumerate(raw)
    )
    if problems:
        raise UserError(str(problems[0]), hint="They are the value worker.tolerations of the chart")
    return found


def _json(environment: Mapping[str, str], name: str) -> dict[str, Any]:
    try:
        raw = json.loads(environment.get(name) or "{}")
    except ValueError as error:
        raise UserError(f"{name} is not JSON: {error}", hint="The chart writes it") from error
    if not isinstance(raw, dict):
        raise UserError(f"{name} is not a JSON object", hint="The chart writes it")
    return raw


def _number(environment: Mapping[str, str], name: str, default: float) -> float:
    text = environment.get(name) or str(default)
    try:
        return float(text)
    except ValueError as error:
        raise UserError(f"{name} is not a number: {text}", hint=f"Like {default:g}") from error
