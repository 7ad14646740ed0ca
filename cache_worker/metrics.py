"""Every metric, declared once. The numbers live in plain counters; this exports them when asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import Metric

    from cache_worker.cluster.clustered import Clustered
    from cache_worker.counters import Counters
    from cache_worker.mounted import Mounts
    from cache_worker.worker import Worker


class WorkerCollector(Collector):
    """Reads the worker's counters at scrape time."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def collect(self) -> Iterable[Metric]:
        """All families."""
        worker = self._worker
        counters, store = worker.cache.counters, worker.store
        base = ["dataset", "namespace", "node"]
        here = [worker.settings.name, worker.settings.namespace, worker.settings.node]

        def counter(name: str, text: str, values: dict[str, int], label: str) -> Metric:
            family = CounterMetricFamily(f"cacheop_{name}", text, labels=[*base, label])
            for value, number in values.items():
                family.add_metric([*here, value], number)
            return family

        def gauge(name: str, text: str, number: float) -> Metric:
            family = GaugeMetricFamily(f"cacheop_{name}", text, labels=base)
            family.add_metric(here, number)
            return family

        demand = counters.demand_origin_bytes
        yield counter(
            "origin_bytes",
            "Bytes read from the origin, by who waited for them",
            {"demand": demand, "background": counters.origin_bytes - demand},
            "reason",
        )
        yield counter(
            "origin_requests", "Requests sent to the origin", counters.origin_requests, "op"
        )
        yield counter(
            "origin_errors", "Origin reads that failed", {"get": counters.origin_errors}, "op"
        )
        yield counter(
            "read_bytes",
            "Bytes read: local from the store as far as readers told, through in answers",
            counters.read_bytes,
            "source",
        )
        yield counter("read_requests", "Reads, likewise", counters.read_requests, "source")
        yield counter("misses", "Reads that waited", {"read": counters.misses}, "op")
        yield counter(
            "planned_bytes",
            "Bytes fetched ahead by plan",
            {"chunks": counters.planned_bytes},
            "what",
        )
        yield counter("evicted_bytes", "Bytes evicted", {"chunks": store.evicted_bytes}, "what")
        yield counter("store_errors", "Disk operations that failed", store.errors, "op")
        yield gauge("cached_bytes", "Bytes in the cache", store.space.used_bytes)
        yield gauge("quota_bytes", "Bytes the cache may hold", store.space.quota_bytes)
        yield gauge(
            "limit_bytes", "Quota, or less where the disk has less", store.space.limit_bytes
        )
        yield gauge("reading_through", "1 while nothing can be stored", float(bool(store.fault())))
        yield gauge(
            "suspended", "1 while origin reads are suspended", float(worker.cache.suspended)
        )
        yield from _of_mounts(worker.mounts, base, here)
        if worker.clustered is not None:
            yield from _of_peers(worker.clustered, counters, base, here)


def _of_mounts(mounts: Mounts, base: list[str], here: list[str]) -> Iterable[Metric]:
    """What is mounted, and what the mount processes were asked."""
    requests = CounterMetricFamily(
        "cacheop_mount_requests",
        "Requests of the kernel since the mount began; what it answers alone is not among them",
        labels=[*base, "mount", "op"],
    )
    info = GaugeMetricFamily(
        "cacheop_mount_info",
        "1 for each mount",
        labels=[*base, "mount", "target", "mode", "version"],
    )
    for mount in mounts.records():
        info.add_metric([*here, mount.id, mount.target, mount.mode, mount.version], 1)
        for op, number in mounts.requests(mount.id).items():
            requests.add_metric([*here, mount.id, op], number)
    yield requests
    yield info


def _of_peers(
    clustered: Clustered, counters: Counters, base: list[str], here: list[str]
) -> Iterable[Metric]:
    """What went between this node and others of its cluster, and what is thought of them."""
    moved = CounterMetricFamily(
        "cacheop_peer_bytes",
        "Payload bytes exchanged with peers, good or not",
        labels=[*base, "direction", "same_zone"],
    )
    requests = CounterMetricFamily(
        "cacheop_peer_requests",
        "Chunks and questions exchanged with peers, by how they ended",
        labels=[*base, "direction", "result"],
    )
    for direction, traffic in (("in", clustered.peers.received), ("out", clustered.server.sent)):
        moved.add_metric([*here, direction, "true"], traffic.same_zone_bytes)
        moved.add_metric([*here, direction, "false"], traffic.other_zone_bytes)
        for result, number in dict(traffic.results).items():
            requests.add_metric([*here, direction, result], number)
    hedged = CounterMetricFamily(
        "cacheop_hedged_origin_bytes",
        "Part of the origin bytes read in place of an owner that was there, but too slow",
        labels=base,
    )
    hedged.add_metric(here, counters.hedged_origin_bytes)
    gathered = CounterMetricFamily(
        "cacheop_gathered_bytes", "Part of the peers' bytes fetched ahead of readers", labels=base
    )
    gathered.add_metric(here, counters.gathered_bytes)
    bans = CounterMetricFamily(
        "cacheop_peer_bans", "Peers not asked for a while, by reason", labels=[*base, "reason"]
    )
    for reason, number in clustered.cluster.bans.items():
        bans.add_metric([*here, reason], number)
    members = GaugeMetricFamily("cacheop_members", "Live members seen, us too", labels=base)
    members.add_metric(here, len(clustered.cluster.view.members))
    yield from (moved, requests, hedged, gathered, bans, members)


def exporter(worker: Worker) -> CollectorRegistry:
    """A registry with this worker's metrics only."""
    registry = CollectorRegistry()
    registry.register(WorkerCollector(worker))
    return registry


def render(registry: CollectorRegistry) -> bytes:
    """The text format."""
    return generate_latest(registry)
