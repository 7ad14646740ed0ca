"""All nodes read a whole cold Dataset at the same time, each in an order of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from benchmarks.cluster.place import S3
from benchmarks.report import Row, at_most, exactly, in_time

if TYPE_CHECKING:
    from benchmarks.cluster.place import Fill, Place
    from tests.fakes.lab.origin import Files

NODES = 4
LIMIT_PART = 4
"""The raw loop moves so much less: it has no start and no end to speak of."""


def measure(place: Place) -> list[Row]:
    """Bytes from the origin, listings, and the time beside that of the slowest link."""
    rows = []
    sizes = place.sizes
    for what, files, mbit in (
        ("big files", place.big, sizes.big_mbit),
        ("110 KB files", place.small, sizes.small_mbit),
    ):
        fills, limits = [], []
        for _ in range(place.sizes.rounds):
            place.shape(mbit)
            limits.append(limit_seconds(place, files))
            with place.running(NODES, files) as nodes:
                fills.append(place.fill(nodes, files))
        rows += _rows(f"4 cold nodes, {what}", files, fills, limits)
    return rows


def limit_seconds(place: Place, files: Files) -> float:
    """The whole Dataset by a raw loop: over the origin's link, then over a peer's; the slower.

    Each byte has to pass both: once out of the origin, and once into every node.
    """
    part = files.total_bytes // LIMIT_PART >> 20
    found = []
    for server in (S3, "n1"):
        with place.raw(server, part << 20) as raw:
            found.append(raw.get(place.host("n0"), part, 1 << 20).mb_per_second)
    return files.total_bytes / min(found) / 1e6


def _rows(what: str, files: Files, fills: list[Fill], limits: list[float]) -> list[Row]:
    ratios = [sum(fill.origin_bytes.values()) / files.total_bytes for fill in fills]
    listings = max(fill.listings for fill in fills)
    note = "; ".join(str(fill.load) for fill in fills)
    share = max(max(fill.origin_bytes.values()) for fill in fills) / files.total_bytes
    sent = f"left its host: {max(f.sent_ratio for f in fills):.3f} x; largest share {share:.2f}"
    return [
        replace(at_most(f"{what}: origin bytes", "x Dataset", ratios, 1.01), note=sent),
        exactly(f"{what}: listings", "", listings, 1),
        replace(
            in_time(f"{what}: time", "s", [fill.seconds for fill in fills], limits, 1.2), note=note
        ),
        bad(what, fills),
    ]


def bad(what: str, fills: list[Fill]) -> Row:
    """Reads that failed, or whose checksum was wrong."""
    row = at_most(f"{what}: bad reads", "", [sum(fill.bad for fill in fills)], 0)
    return replace(row, note=next((f.first_error for f in fills if f.bad), ""))
