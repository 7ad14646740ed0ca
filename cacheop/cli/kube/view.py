"""Datasets and DataLoads of a cluster as words, rows and JSON. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cacheop.api.quantity import parse_quantity
from cacheop.cli import view
from cacheop.cli.progress import CANCELLED, COMPLETE, FAILED

if TYPE_CHECKING:
    from collections.abc import Mapping

READY = "Ready"
ENDED = frozenset({COMPLETE, FAILED, CANCELLED})
CONDITION_HEAD = ("CONDITION", "STATUS", "REASON", "MESSAGE")
NODE_HEAD = ("NODE", "CACHED", "OF", "COMPLETE")
OVERVIEW_HEAD = ("DATASET", "PHASE", "VERSION", "FILES", "SIZE", "CACHED", "HIT", "ORIGIN", "READY")


def summary(document: Mapping[str, Any], cluster: str, server: str) -> dict[str, Any]:
    """One object for a Dataset, in the local `status`'s words where the meaning is the same."""
    metadata, spec = document["metadata"], document.get("spec") or {}
    status = document.get("status") or {}
    cache = status.get("cacheStates") or {}
    name, namespace = metadata["name"], metadata.get("namespace") or "default"
    return {
        "cluster": cluster,
        "server": server,
        "dataset": name,
        "namespace": namespace,
        "url": f"cacheop://{name}.{namespace}/",
        "claim": name,
        "shared_with": list((spec.get("shareWith") or {}).get("namespaces") or ()),
        "phase": status.get("phase") or "Pending",
        "suspended": bool(spec.get("suspend")),
        "version": status.get("version") or "",
        "mode": status.get("mode") or "",
        "file_count": status.get("fileNum"),
        "bytes_total": status.get("ufsTotalBytes"),
        "cached_bytes": cache.get("cachedBytes") or 0,
        "cached_percentage": number(cache.get("cachedPercentage")),
        "hit_ratio": share(cache.get("hitRatio")),
        "origin_bytes": cache.get("originBytes") or 0,
        "origin_ratio": number(cache.get("originRatio")),
        "replicas": spec.get("replicas", 1),
        "workers": status.get("replicas") or 0,
        "ready_workers": status.get("readyReplicas") or 0,
        "is_current": status.get("observedGeneration") == metadata.get("generation"),
        "conditions": list(status.get("conditions") or ()),
        "nodes": list(status.get("nodes") or ()),
        "affinity": affinity(name, namespace),
    }


def number(text: object) -> float | None:
    """`56.2%` -> 56.2; None when it is no number."""
    try:
        return float(str(text).rstrip("%x "))
    except ValueError:
        return None


def share(text: object) -> float | None:
    """`98.3%` -> 0.983."""
    found = number(text)
    return None if found is None else found / 100


def affinity(name: str, namespace: str) -> dict[str, Any]:
    """What a pod's spec says to come near the workers of a Dataset, where there is room."""
    labels = {
        "app.kubernetes.io/name": "cacheop",
        "app.kubernetes.io/component": "worker",
        "cacheop.io/dataset": name,
    }
    term = {
        "topologyKey": "kubernetes.io/hostname",
        "namespaces": [namespace],
        "labelSelector": {"matchLabels": labels},
    }
    preferred = [{"weight": 100, "podAffinityTerm": term}]
    return {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}


def subject(found: Mapping[str, Any]) -> str:
    """What a verb acts on."""
    return (
        f"Dataset {found['namespace']}/{found['dataset']} in cluster {found['cluster']} "
        f"({found['server']})"
    )


def headline(found: Mapping[str, Any]) -> str:
    """How it is, in one line."""
    suspended = ", suspended" if found["suspended"] else ""
    if not found["bytes_total"]:
        return f"{found['phase']}{suspended}"
    cached = found["cached_percentage"]
    told = view.percent(None if cached is None else cached / 100)
    hit = found["hit_ratio"]
    reads = "nothing read yet" if hit is None else f"hit ratio {view.percent(hit)}"
    return (
        f"{found['phase']}{suspended}: {told} cached, {reads}, "
        f"{view.size(found['origin_bytes'])} read from the origin "
        f"({view.times(found['origin_ratio'])} the Dataset)"
    )


def detail_lines(found: Mapping[str, Any]) -> list[str]:
    """Version, workers, how to read it."""
    files, total = view.count(found["file_count"], "file"), view.size(found["bytes_total"])
    mode = f"; mount mode {found['mode']}" if found["mode"] else ""
    shared = f", shared with {', '.join(found['shared_with'])}" if found["shared_with"] else ""
    ready = f"{found['ready_workers']} of {found['workers']}"
    lines = [
        f"version {found['version'] or view.UNKNOWN}: {files}, {total}{mode}",
        f"workers: {ready} ready, {found['replicas']} wanted always",
        f"read it by claim {found['claim']}{shared}, or at {found['url']} (fsspec)",
    ]
    if not found["is_current"]:
        lines.append("the operator has not looked at the last change yet")
    return lines


def condition_rows(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Those that are not good first."""
    conditions = sorted(found["conditions"], key=lambda c: c.get("status") == "True")
    return [
        (c["type"], c["status"], c.get("reason") or view.UNKNOWN, c.get("message") or "")
        for c in conditions
    ]


def node_rows(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The nodes that hold something, the fullest first."""
    nodes = sorted(found["nodes"], key=lambda n: (-(n.get("cachedBytes") or 0), n["name"]))
    return [
        (
            node["name"],
            view.size(node.get("cachedBytes") or 0),
            view.size(found["bytes_total"]),
            "yes" if node.get("complete") else "no",
        )
        for node in nodes
    ]


def overview_row(found: Mapping[str, Any]) -> tuple[str, ...]:
    """One line of a list of Datasets."""
    cached = found["cached_percentage"]
    return (
        f"{found['namespace']}/{found['dataset']}",
        found["phase"],
        found["version"] or view.UNKNOWN,
        view.count(found["file_count"]),
        view.size(found["bytes_total"]),
        view.percent(None if cached is None else cached / 100),
        view.percent(found["hit_ratio"]),
        view.times(found["origin_ratio"]),
        f"{found['ready_workers']}/{found['workers']}",
    )


def load_event(status: Mapping[str, Any]) -> dict[str, Any]:
    """The status of a DataLoad in the words of the protocol's `load`."""
    return {
        "phase": status.get("phase") or "Pending",
        "version": status.get("version") or "",
        "bytes": status.get("bytes") or 0,
        "bytes_total": status.get("bytesTotal") or 0,
        "files": status.get("files") or 0,
        "files_total": status.get("filesTotal") or 0,
        "failed": list(status.get("failed") or ()),
        "rate_bytes_per_second": rate(status.get("rate")),
        "eta": status.get("eta") or "",
        "conditions": list(status.get("conditions") or ()),
    }


def rate(text: object) -> int | None:
    """`1.2Gi/s` -> bytes a second."""
    bare = str(text or "").removesuffix("/s")
    try:
        return parse_quantity(bare)
    except ValueError:
        return None
    except OSError:  # SpecError: no rate yet
        return None


def load_words(event: Mapping[str, Any]) -> str:
    """What is said of a load besides its bytes."""
    if not event["bytes_total"]:
        return str(event["phase"]).lower()
    return (
        f"{view.count(event['files'])} of {view.count(event['files_total'], 'file')}, "
        f"{view.rate(event['rate_bytes_per_second'])}, {event['eta'] or view.UNKNOWN} to go"
    )
