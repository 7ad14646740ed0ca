"""Redis is killed under load, and comes back empty."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from benchmarks.cluster.cold import bad
from benchmarks.cluster.place import REDIS
from benchmarks.report import Row, at_most, shown, versus
from tests.fakes.lab.redis import LabRedis

if TYPE_CHECKING:
    from benchmarks.cluster.place import Place
    from tests.fakes.lab.readers import Readers, Seen

QUOTA_SHARE = 0.5
"""Of the Dataset on each node: what is read keeps going between the nodes."""
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

        def during(began: float, _: Readers) -> None:
            time.sleep(2 * before)  # the first half fills the caches
            moments.extend([began + before, time.monotonic()])
            redis.kill()
            time.sleep(away)
            moments.append(time.monotonic())
            redis.start()
            time.sleep(before)
            moments.append(time.monotonic())

        with place.running(4, files, redis=redis.members, spec=spec) as nodes:
            seconds = 3 * before + away
            fill = place.fill(nodes, files, during=during, epochs=EPOCHS, seconds=seconds)
            members = min(node.metric("cacheop_members") for node in nodes)
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
