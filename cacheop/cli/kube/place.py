"""Whether a verb means this machine or a cluster. The decision is pure; it is always said aloud."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cacheop.cli.select import parse_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cacheop.local import RunRecord

IN_POD_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


@dataclass(frozen=True, slots=True)
class Choice:
    """Which cluster, as it was asked for."""

    context: str = ""
    kubeconfig: str = ""
    namespace: str = ""

    @property
    def is_explicit(self) -> bool:
        """Whether a cluster was named."""
        return bool(self.context or self.kubeconfig)


def means_cluster(
    records: Sequence[RunRecord], name: str, choice: Choice, *, is_known: bool
) -> bool:
    """A cluster that was named; else what runs here; else the cluster that is known, if one is."""
    if choice.is_explicit or not is_known:
        return choice.is_explicit
    if not name:
        return not any(choice.namespace in {"", record.namespace} for record in records)
    inside, bare = parse_name(name, choice.namespace)
    return not any(r.name == bare and inside in {"", r.namespace} for r in records)


def cluster_is_known(environment: Mapping[str, str]) -> bool:
    """Whether there is a kubeconfig, or we are in a pod."""
    named = environment.get("KUBECONFIG", "")
    if named:
        return any(Path(path).is_file() for path in named.split(os.pathsep) if path)
    home = Path(environment.get("HOME") or "/nonexistent")
    return (home / ".kube/config").is_file() or is_pod(environment)


def is_pod(environment: Mapping[str, str]) -> bool:
    """Whether a pod's service account says who we are."""
    return bool(environment.get("KUBERNETES_SERVICE_HOST")) and IN_POD_TOKEN.is_file()


def of(name: str, choice: Choice) -> Choice | None:
    """The cluster to ask, or None for this machine."""
    from cacheop import local

    if choice.is_explicit:
        return choice
    known = cluster_is_known(os.environ)
    return choice if means_cluster(local.all_records(), name, choice, is_known=known) else None
