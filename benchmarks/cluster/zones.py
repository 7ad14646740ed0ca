"""Two zones of two nodes: each reads the origin once, and nothing goes across."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from benchmarks.cluster.cold import bad
from benchmarks.report import Row, at_most

if TYPE_CHECKING:
    from benchmarks.cluster.place import Place

ZONES = {"n0": "a", "n1": "a", "n2": "b", "n3": "b"}


def measure(place: Place) -> list[Row]:
    """Bytes from the origin in the zone that read most, and bytes between zones."""
    files, what = place.medium, "2 zones of 2"
    place.shape(place.sizes.medium_mbit)
    with place.running(len(ZONES), files, zones=ZONES) as nodes:
        fill = place.fill(nodes, files)
        across, within = (
            sum(n.metric("cacheop_peer_bytes_total", same_zone=same) for n in nodes)
            for same in ("false", "true")
        )
    if not within:
        raise RuntimeError("no node tells of bytes from its zone: that none crossed says nothing")
    by_zone = [
        sum(read for node, read in fill.origin_bytes.items() if ZONES[node] == zone)
        / files.total_bytes
        for zone in sorted(set(ZONES.values()))
    ]
    row = at_most(f"{what}: origin bytes, each zone", "x Dataset", [max(by_zone)], 1.01)
    return [
        replace(row, note=f"{', '.join(f'{z:.3f}' for z in by_zone)}; {fill.load}"),
        replace(
            at_most(f"{what}: payload between zones", "bytes", [across], 0),
            note=f"within zones {within / files.total_bytes:.2f} x Dataset, in and out",
        ),
        bad(what, [fill]),
    ]
