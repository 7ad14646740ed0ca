"""Redis is killed under load, and comes back empty."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from benchmarks.cluster.cold import bad
from benchmarks.cluster.place import REDIS, wait_filled
from benchmarks.report import Row, at_most, shown, versus
from tests.fakes.lab.redis import LabRedis

if TYPE_CHECKING:
    from benchmarks.cluster.place import Place
    from tests.fakes.lab.readers import Readers, Seen

QUOTA_SHARE = 0.5
"""Of the Dataset on each node: what is read keeps going between the nodes."""
FULL_SHARE = 0.8
"""Of the quota: then readers read as they will go on to."""
EPOCHS = 1000  # more than there is time for


def measure(place: Place) -> list[Row]:
    """Throughput of readers before, while Redis is away, and after; their errors."""
    what, sizes, files = "Redis killed under load", place.sizes, place.medium
    before, away = sizes.redis_before_seconds, sizes.redis_away_seconds
    quota = f"{int(files.total_bytes * QUOTA_SHARE)}"
    spec = {"cache": {"tiers": [{"medium": "Disk", "quota": quota}]}}
    place.shape(sizes.medium_mbit)
    moments: list[float] = []
    with LabRedis(place.host(REDIS), place.directory / "redis") as redis:

        def during(_: float, readers: Readers) -> None:
            for node in nodes:
                wait_filled(node, files, FULL_SHARE * QUOTA_SHARE)
            for step in (lambda: None, redis.kill, redis.start, readers.stop):
                moments.append(time.monotonic())
                step()
                time.sleep(away if step == redis.kill else before)

        with place.running(4, files, redis=redis.members, spec=spec) as nodes:
            fill = place.fill(nodes, files, during=during, epochs=EPOCHS)
            members = min(len(node.live_members()) for node in nodes)
    start, killed, back, end = moments
    with_redis, without = rate(fill.seen, start, killed), rate(fill.seen, killed, back)
    note = f"{away:.0f} s without, {fill.load}"
    return [
        bad(what, [fill]),
        replace(versus(f"{what}: throughput", "MB/s", [without], [with_redis], 0.9), note=note),
        shown(f"{what}: throughput after it came back", "MB/s", rate(fill.seen, back, end)),
        replace(at_most(f"{what}: members missing at the end", "", [4 - members], 0)),
    ]


def rate(seen: list[Seen], since: float, until: float) -> float:
    """MB/s of all readers together."""
    total = sum(length for one in seen for _, _, length in one.between(since, until))
    return total / (until - since) / 1e6
