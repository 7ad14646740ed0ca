"""What `cacheop top` shows, from two statuses of each node and the time between them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cacheop.cli import view

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

SOURCES = ("local", "peer", "origin")


def snapshot(
    before: Sequence[Mapping[str, Any]],
    after: Sequence[Mapping[str, Any]],
    seconds: float,
    hot: Iterable[Iterable[Mapping[str, Any]]],
) -> dict[str, Any]:
    """Nodes, totals and the hottest files; statuses as `asking.statuses`, `hot` of each node."""
    earlier = {status["node"]: status for status in before}
    nodes = [_node(earlier.get(status["node"], {}), status, seconds) for status in after]
    live = [status for status in after if status.get("running")]
    bytes_total = max((status.get("bytes_total") or 0 for status in live), default=0)
    origin_bytes = sum(status.get("origin_bytes") or 0 for status in live)
    return {
        "version": next((status["version"] for status in live if status.get("version")), ""),
        "bytes_total": bytes_total,
        "nodes": nodes,
        "totals": {
            "cached_bytes": sum(node["cached_bytes"] or 0 for node in nodes),
            "read_bytes_per_second": _total_rates(nodes),
            "hit_ratio": view.hit_ratio(live),
            "origin_ratio": origin_bytes / bytes_total if bytes_total else None,
        },
        "hot": merge_hot(hot),
    }


def _node(before: Mapping[str, Any], after: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    peer = after.get("peer") or {}
    return {
        "node": after["node"],
        "zone": after.get("zone") or "",
        "state": state(after),
        "cached_bytes": after.get("cached_bytes"),
        "cached_percentage": after.get("cached_percentage"),
        "read_bytes_per_second": rates(before, after, seconds),
        "hit_ratio": after.get("hit_ratio"),
        "origin_ratio": after.get("origin_ratio"),
        "hedged_origin_bytes": peer.get("hedged_origin_bytes"),
        "bans": peer.get("bans"),
    }


def state(status: Mapping[str, Any]) -> str:
    """`ready`, `draining`, `suspended`, `stopped`, `gone`, or the phase of a node not ready."""
    if not status.get("running"):
        return "stopped" if status.get("phase") == "Stopped" else "gone"
    if status.get("phase") != "Ready":
        return str(status.get("phase", view.UNKNOWN)).lower()
    if status.get("draining"):
        return "draining"
    return "suspended" if status.get("suspended") else "ready"


def rates(
    before: Mapping[str, Any], after: Mapping[str, Any], seconds: float
) -> dict[str, float | None]:
    """Bytes a second from each source; None where nobody can tell.

    Counters begin at 0 with each start of a worker: from one process to the next there is no
    difference to take.
    """
    old, new = before.get("read_sources"), after.get("read_sources")
    if not old or not new or before.get("pid") != after.get("pid") or seconds <= 0:
        return dict.fromkeys(SOURCES)
    return {
        source: max(0, (new.get(source) or 0) - (old.get(source) or 0)) / seconds
        for source in SOURCES
    }


def _total_rates(nodes: Iterable[Mapping[str, Any]]) -> dict[str, float | None]:
    """Sums of what is known; None when no node knows."""
    known = {
        source: [r for node in nodes if (r := node["read_bytes_per_second"][source]) is not None]
        for source in SOURCES
    }
    return {source: sum(found) if found else None for source, found in known.items()}


def merge_hot(answers: Iterable[Iterable[Mapping[str, Any]]], count: int = 10) -> list[Any]:
    """The files that were read most on all nodes together, and on how many nodes each is cached."""
    files: dict[str, dict[str, Any]] = {}
    for answer in answers:
        for file in answer:
            path = str(file["path"])
            found = files.setdefault(path, {"path": path, "reads": 0, "cached_nodes": 0})
            found["reads"] += file.get("reads") or 0
            found["cached_nodes"] += bool(file.get("cached"))
    return sorted(files.values(), key=lambda file: (-file["reads"], file["path"]))[:count]


HEAD = ("NODE", "ZONE", "STATE", "CACHED", "", "LOCAL", "PEER", "ORIGIN", "HIT", "ORIGIN BYTES")


def rows(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """One line a node, and one for all when there are several."""
    lines = [_row(node, node["node"]) for node in found["nodes"]]
    if len(lines) > 1:
        lines.append(_row(found["totals"], "all"))
    return lines


def _row(of: Mapping[str, Any], name: str) -> tuple[str, ...]:
    share = of.get("cached_percentage")
    per_second = of["read_bytes_per_second"]
    return (
        name,
        of.get("zone") or view.UNKNOWN,
        of.get("state") or view.UNKNOWN,
        view.size(of["cached_bytes"]),
        view.percent(share / 100 if share is not None else None),
        *(view.rate(per_second[source]) for source in SOURCES),
        view.percent(of["hit_ratio"]),
        view.times(of["origin_ratio"]),
    )


HOT_HEAD = ("HOTTEST FILES", "READS", "CACHED ON")


def hot_rows(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """One line a file."""
    return [
        (file["path"], view.count(file["reads"]), view.count(file["cached_nodes"], "node"))
        for file in found["hot"]
    ]
