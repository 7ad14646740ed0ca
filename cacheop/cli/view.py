"""What people read: pure functions from the protocol's fields to words, rows and lines."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cacheop.local import RunRecord

UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
UNKNOWN = "-"


def size(count_bytes: float | None) -> str:
    """`1536` -> `1.5 KiB`."""
    if count_bytes is None:
        return UNKNOWN
    value, unit = float(count_bytes), 0
    while abs(value) >= 1024 and unit < len(UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.0f} B" if unit == 0 else f"{value:.1f} {UNITS[unit]}"


def count(number: float | None, noun: str = "") -> str:
    """`(1, "file")` -> `1 file`; `(20000, "file")` -> `20,000 files`."""
    if number is None:
        return UNKNOWN
    if not noun:
        return f"{number:,.0f}"
    return f"{number:,.0f} {noun}" + ("" if number == 1 else "s")


def percent(ratio: float | None) -> str:
    """`0.5` -> `50.0 %`."""
    return UNKNOWN if ratio is None else f"{100 * ratio:.1f} %"


def rate(bytes_per_second: float | None) -> str:
    """`1536` -> `1.5 KiB/s`."""
    return UNKNOWN if bytes_per_second is None else f"{size(bytes_per_second)}/s"


def times(ratio: float | None) -> str:
    """`1.0` -> `1.00 x`."""
    return UNKNOWN if ratio is None else f"{ratio:.2f} x"


def duration(seconds: float | None) -> str:
    """`3725` -> `1h02m`; below a minute in seconds."""
    if seconds is None or seconds < 0:
        return UNKNOWN
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"


def moment(seconds: float | None) -> str:
    """A point in time as local date and minute."""
    if not seconds:
        return UNKNOWN
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def printable(name: str) -> str:
    """`name` with what would move the cursor or is not text shown as an escape."""
    if name.isprintable():
        return name
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def subject(record: RunRecord) -> str:
    """What a verb acts on."""
    nodes = count(len(record.nodes), "node")
    return f"Dataset {record.namespace}/{record.name} on this machine, {nodes}"


def url(record: RunRecord) -> str:
    """The Dataset's address for fsspec."""
    suffix = "" if record.namespace == "default" else f".{record.namespace}"
    return f"cacheop://{record.name}{suffix}/"


def summary(record: RunRecord, nodes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One object for a Dataset: what was started, totals over its nodes, each node's status.

    `nodes` are the statuses as docs/protocol.md has them, plus `running`. Ratios weigh nodes by
    what they read; a ratio that no node knows is None.
    """
    live = [n for n in nodes if n.get("running")]
    tcp = any((n.get("addresses") or {}).get("tcp") for n in live)
    bytes_total = max((n.get("bytes_total") or 0 for n in live), default=0)
    origin_bytes = sum(n.get("origin_bytes") or 0 for n in live)
    return {
        "dataset": record.name,
        "namespace": record.namespace,
        "url": url(record),
        "file": record.file,
        "mount": record.mount,
        "client_token_file": str(record.client_token) if tcp else "",
        "started": record.started,
        "phase": worst_phase(nodes),
        "version": next((n["version"] for n in live if n.get("version")), ""),
        "file_count": max((n.get("file_count") or 0 for n in live), default=0),
        "bytes_total": bytes_total,
        "cached_bytes": sum(n.get("cached_bytes") or 0 for n in live),
        "unique_cached_bytes": unique_cached_bytes(live),
        "origin_bytes": origin_bytes,
        "origin_ratio": origin_bytes / bytes_total if bytes_total else None,
        "read_bytes": sum(n.get("read_bytes") or 0 for n in live),
        "hit_ratio": hit_ratio(live),
        "mounts": [mount for n in live for mount in n.get("mounts") or ()],
        "nodes": list(nodes),
    }


def unique_cached_bytes(nodes: Iterable[Mapping[str, Any]]) -> int:
    """What nodes have together, copies counted once: what each has of its own share of chunks.

    Each zone is to have all, so the fullest one counts. A node that is alone owns what it has.
    """
    zones: dict[str, int] = {}
    for node in nodes:
        owned = node.get("owned_cached_bytes")
        found = node.get("cached_bytes") if owned is None else owned
        zone = str(node.get("zone") or "")
        zones[zone] = zones.get(zone, 0) + int(found or 0)
    return max(zones.values(), default=0)


def is_as_wanted(node: Mapping[str, Any]) -> bool:
    """Whether a node runs that is meant to."""
    return bool(node.get("running")) or node.get("phase") == STOPPED


STOPPED = "Stopped"
PHASES = ("NotRunning", "Failed", "Pending", "Indexing", "Ready")


def worst_phase(nodes: Iterable[Mapping[str, Any]]) -> str:
    """The phase of the node that is furthest from Ready."""
    found = [str(n.get("phase")) for n in nodes if n.get("phase") != STOPPED]
    return min(found, key=lambda p: PHASES.index(p) if p in PHASES else 0, default="NotRunning")


def hit_ratio(nodes: Iterable[Mapping[str, Any]]) -> float | None:
    """Over all nodes, weighted by bytes read; None if no node knows its own."""
    known = [n for n in nodes if n.get("hit_ratio") is not None]
    read_bytes = sum(n.get("read_bytes") or 0 for n in known)
    if not known:
        return None
    if not read_bytes:
        return float(sum(n["hit_ratio"] for n in known) / len(known))
    return float(sum(n["hit_ratio"] * (n.get("read_bytes") or 0) for n in known) / read_bytes)


OVERVIEW_HEAD = ("DATASET", "PHASE", "VERSION", "FILES", "SIZE", "CACHED", "HIT", "ORIGIN", "MOUNT")


def overview_row(dataset: Mapping[str, Any]) -> tuple[str, ...]:
    """One line of the list of all Datasets; `dataset` is a `summary`."""
    total = dataset["bytes_total"]
    return (
        f"{dataset['namespace']}/{dataset['dataset']}",
        dataset["phase"],
        dataset["version"] or UNKNOWN,
        count(dataset["file_count"]),
        size(total),
        percent(dataset["unique_cached_bytes"] / total if total else None),
        percent(dataset["hit_ratio"]),
        times(dataset["origin_ratio"]),
        dataset["mount"] or UNKNOWN,
    )


NODE_HEAD = ("NODE", "PHASE", "PID", "CACHED", "OF", "QUOTA", "HIT", "READ", "ORIGIN", "REQUESTS")


def node_row(node: Mapping[str, Any]) -> tuple[str, ...]:
    """One node of a Dataset."""
    if not node.get("running"):
        how = "stopped" if node.get("phase") == STOPPED else "not running"
        return (node["node"], how, *(UNKNOWN for _ in NODE_HEAD[2:]))
    phase = str(node.get("phase", UNKNOWN))
    if node.get("suspended"):
        phase += ", suspended"
    return (
        node["node"],
        phase,
        str(node.get("pid", UNKNOWN)),
        size(node.get("cached_bytes")),
        size(node.get("bytes_total")),
        size(node.get("quota_bytes")),
        percent(node.get("hit_ratio")),
        size(node.get("read_bytes")),
        f"{size(node.get('origin_bytes'))} ({times(node.get('origin_ratio'))})",
        count(requests(node.get("origin_requests"))),
    )


MEMBER_HEAD = ("NODE", "ZONE", "STATE", "SEES", "FROM PEERS", "TO PEERS", "HEDGED", "BANS")


def member_row(node: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """What one node is in its cluster."""
    if not node.get("running"):
        return (node["node"], *(UNKNOWN for _ in MEMBER_HEAD[1:]))
    peer = node.get("peer") or {}
    wanted = [n for n in nodes if n.get("phase") != STOPPED]
    return (
        node["node"],
        node.get("zone") or UNKNOWN,
        "draining" if node.get("draining") else "member",
        f"{len(live_members(node))} of {len(wanted)}",
        size(peer.get("in_bytes")),
        size(peer.get("out_bytes")),
        size(peer.get("hedged_origin_bytes")),
        count(peer.get("bans")),
    )


def live_members(node: Mapping[str, Any]) -> set[str]:
    """The nodes that `node` takes for live, itself too."""
    return {str(m["node"]) for m in node.get("members") or () if m.get("live")}


def unseen_lines(nodes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Who does not hear of whom, though both run."""
    running = {str(n["node"]) for n in nodes if n.get("running")}
    return [
        f"{node['node']} does not hear of {', '.join(sorted(unseen))}, which runs"
        for node in nodes
        if node.get("members") and (unseen := running - live_members(node))
    ]


def requests(value: object) -> float | None:
    """How many, whether told in total or by operation."""
    if isinstance(value, dict):
        return float(sum(value.values()))
    return float(value) if isinstance(value, int | float) else None


def condition_lines(nodes: Iterable[Mapping[str, Any]]) -> list[str]:
    """The conditions that are not good, each with its reason and what to do."""
    return [
        f"{node['node']}: {c['type']} is {c['status']} ({c.get('reason', '')}): "
        f"{c.get('message', '')}".rstrip(": ")
        for node in nodes
        for c in node.get("conditions") or ()
        if c["status"] != "True"
    ]


def headline(dataset: Mapping[str, Any]) -> str:
    """How a Dataset is, in one line: `Ready: 56.2 % cached, …`."""
    nodes, total = dataset["nodes"], dataset["bytes_total"]
    suspended = ", suspended" if any(n.get("suspended") for n in nodes) else ""
    if not total:
        return f"{dataset['phase']}{suspended}"
    share = percent(dataset["unique_cached_bytes"] / total)
    hit = percent(dataset["hit_ratio"]) if dataset["hit_ratio"] is not None else "nothing read yet"
    return (
        f"{dataset['phase']}{suspended}: {share} cached, hit ratio {hit}, "
        f"{size(dataset['origin_bytes'])} read from the origin "
        f"({times(dataset['origin_ratio'])} the Dataset)"
    )


def detail_lines(dataset: Mapping[str, Any]) -> list[str]:
    """What `up` and `status` say besides the tables: size, how to read it, what was left out."""
    nodes = dataset["nodes"]
    files, total = count(dataset["file_count"], "file"), size(dataset["bytes_total"])
    lines = [
        f"version {dataset['version'] or UNKNOWN}: {files}, {total}",
        f"read it at {dataset['url']} (fsspec){mounts_text(dataset)}",
    ]
    for node in nodes:
        addresses = node.get("addresses") or {}
        told = [f"{kind} {at}" for kind, at in addresses.items() if at]
        if told:
            lines.append(f"{node['node']}: cache in {node.get('root')}, {', '.join(told)}")
    if dataset.get("client_token_file"):
        endpoint = next(
            n["addresses"]["tcp"] for n in nodes if (n.get("addresses") or {}).get("tcp")
        )
        lines.append(
            f"on other machines: export CACHEOP_ENDPOINT={endpoint} "
            f'CACHEOP_TOKEN="$(cat client-token)", a copy of {dataset["client_token_file"]}'
        )
    skipped: object = next((n["skipped"] for n in nodes if n.get("skipped")), {})
    return lines + other_mount_lines(dataset) + skipped_lines(skipped)


def mounts_text(dataset: Mapping[str, Any]) -> str:
    """` and below /mnt/demo (mount mode Fuse: why)`, or nothing."""
    if not dataset["mount"]:
        return ""
    modes = {mode_text(m) for m in dataset["mounts"] if m.get("target") == dataset["mount"]} - {""}
    mode = f" (mount mode {', '.join(sorted(modes))})" if modes else ""
    return f" and below {dataset['mount']}{mode}"


def mode_text(mount: Mapping[str, Any]) -> str:
    """`Fuse: why`."""
    return ": ".join(str(mount[key]) for key in ("mode", "why") if mount.get(key))


def other_mount_lines(dataset: Mapping[str, Any]) -> list[str]:
    """One line for each mount besides the one that `up` made."""
    return [
        f"mounted at {m['target']} (mount mode {mode_text(m)}), version {m.get('version')}"
        for m in dataset["mounts"]
        if m.get("target") != dataset["mount"]
    ]


def skipped_lines(skipped: object) -> list[str]:
    """`{reason: {count, examples}}` as one line a reason."""
    if not isinstance(skipped, dict):
        return []
    return [
        f"left out {count(found['count'], 'key')}, {reason}: "
        + ", ".join(repr(e) for e in found.get("examples", [])[:5])
        for reason, found in sorted(skipped.items())
        if found.get("count")
    ]


VERSION_HEAD = ("VERSION", "FILES", "SIZE", "CACHED", "CREATED", "STATE")


def version_row(version: Mapping[str, Any]) -> tuple[str, ...]:
    """One kept version."""
    state = [word for key, word in (("current", "current"), ("in_use", "in use")) if version[key]]
    return (
        version["version"],
        count(version["files"]),
        size(version["bytes"]),
        size(version["cached_bytes"]),
        created(version.get("created")),
        ", ".join(state) or UNKNOWN,
    )


def created(value: object) -> str:
    """A time as seconds or as text already."""
    if isinstance(value, int | float):
        return moment(value)
    return str(value) if value else UNKNOWN


def indexing_line(name: str, indexing: Mapping[str, Any] | None) -> str:
    """The progress of a listing as one line."""
    if not indexing:
        return f"{name}: starting"
    return (
        f"{name}: listing the origin, {count(indexing.get('keys') or 0, 'key')} "
        f"in {duration(indexing.get('seconds') or 0)}"
    )


def columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """An aligned table as lines, two blanks between columns, nothing cut off."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    ]
