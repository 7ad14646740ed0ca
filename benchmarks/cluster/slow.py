"""One of four nodes has 5 % of the link of the others, both ways."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from benchmarks.cluster.cold import bad
from benchmarks.report import Row, at_most, in_time

if TYPE_CHECKING:
    from benchmarks.cluster.place import Fill, Place

SLOW = "n3"
SHARE = 0.05


def measure(place: Place) -> list[Row]:
    """Time of the other three beside the time they take when all links are the same."""
    what, files = "one of four with 5 % of the link", place.medium
    normal, slowed, ratios, hedged = [], [], [], []
    for _ in range(place.sizes.rounds):
        normal.append(_fill(place, slow=False)[0])
        fill, bytes_hedged = _fill(place, slow=True)
        slowed.append(fill)
        hedged.append(bytes_hedged / files.total_bytes)
        ratios.append(sum(fill.origin_bytes.values()) / files.total_bytes - hedged[-1])
    note = "; ".join(str(fill.load) for fill in slowed)
    origin = at_most(f"{what}: origin bytes but the hedged", "x Dataset", ratios, 1.01)
    shares = ", ".join(f"{share:.3f}" for share in hedged)
    time = in_time(f"{what}: the others' fill", "s", _seconds(slowed), _seconds(normal), 1.1)
    return [
        replace(time, note=note),
        replace(origin, note=f"hedged: {shares} x"),
        bad(what, slowed),
    ]


def _fill(place: Place, *, slow: bool) -> tuple[Fill, float]:
    """Three nodes read; the fourth serves its share only."""
    place.shape(place.sizes.medium_mbit)
    if slow:
        mbit = place.sizes.medium_mbit * SHARE
        place.host(SLOW).shape(up_mbit=mbit, down_mbit=mbit)
    with place.running(4, place.medium) as nodes:
        fill = place.fill([node for node in nodes if node.name != SLOW], place.medium)
        hedged = sum(node.status()["peer"]["hedged_origin_bytes"] for node in nodes)
        fill.origin_bytes[SLOW] = nodes[-1].metric("cacheop_origin_bytes_total")
    return fill, hedged


def _seconds(fills: list[Fill]) -> list[float]:
    return [fill.seconds for fill in fills]
