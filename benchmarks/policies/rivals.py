"""The classic policies, as libcachesim has them. Chunks of one size."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cache_worker.simulation.trace import Trace

RIVALS = {
    "LRU": "LRU",
    "LFU": "LFU",
    "ARC": "ARC",
    "S3-FIFO": "S3FIFO",
    "SIEVE": "Sieve",
    "W-TinyLFU": "WTinyLFU",
}
"""Name in the tables: libcachesim's class."""
LEAST = {"S3-FIFO": 64, "W-TinyLFU": 64}
"""With fewer chunks one of their queues would be empty; libcachesim ends the process then."""


def hit_ratio(name: str, trace: Trace, capacity: int) -> float:
    """Of the reads that count, with room for `capacity` chunks."""
    import libcachesim

    cache, request = getattr(libcachesim, RIVALS[name])(cache_size=capacity), libcachesim.Request()
    request.obj_size = 1
    hits = 0
    for at, slot in enumerate(trace.slots):
        request.obj_id, request.clock_time = slot, at
        hits += cache.get(request) and at >= trace.warm
    return hits / (len(trace.slots) - trace.warm)
