"""One node reads what its neighbour holds, beside raw sockets over the same link."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from benchmarks.cluster.place import origin_bytes
from benchmarks.report import Row, at_most, versus
from benchmarks.setting import SMALL_BYTES
from tests.fakes.lab.origin import PIECE_BYTES

if TYPE_CHECKING:
    from benchmarks.cluster.limits import Run
    from benchmarks.cluster.place import Fill, Place
    from tests.fakes.lab.origin import Files

NEIGHBOUR, READER = "n0", "n1"
BIG_THREADS = 4


def measure(place: Place) -> list[Row]:
    """MB/s and files/s over a link that is slower than the CPUs."""
    return [*_big(place), *_small(place)]


def _big(place: Place) -> list[Row]:
    limits, fills, from_origin = _in_turn(place, place.big, PIECE_BYTES)
    rates = [place.big.total_bytes / fill.seconds / 1e6 for fill in fills]
    beside = [run.mb_per_second for run in limits]
    note = str(fills[-1].load)
    what = "warm neighbour, big chunks"
    return [
        replace(versus(f"{what}, verified, to a file", "MB/s", rates, beside, 0.7), note=note),
        replace(at_most(f"{what}: from the origin", "MB", [from_origin / 1e6], 0), note=note),
    ]


def _small(place: Place) -> list[Row]:
    limits, fills, from_origin = _in_turn(place, place.small, SMALL_BYTES)
    count = place.small.count
    rates = [count / fill.seconds for fill in fills]
    beside = [run.bytes / SMALL_BYTES / run.seconds for run in limits]
    note = str(fills[-1].load)
    what = "warm neighbour, 110 KB"
    return [
        replace(versus(what, "files/s", rates, beside, 0.5), note=note),
        replace(at_most(f"{what}: from the origin", "MB", [from_origin / 1e6], 0), note=note),
    ]


def _in_turn(place: Place, files: Files, length: int) -> tuple[list[Run], list[Fill], float]:
    """Raw loop and cluster by turns; the reader's cache is empty each time."""
    place.shape(0)
    limits, fills, from_origin = [], [], 0.0
    nodes = place.nodes(2, files)
    neighbour, reader = nodes
    try:
        neighbour.start()
        neighbour.call("load", 300, paths=[])
        place.shape(place.sizes.warm_mbit)
        with place.raw(NEIGHBOUR, files.total_bytes) as raw:
            for _ in range(place.sizes.rounds):
                count = files.total_bytes // length
                limits.append(raw.get(place.host(READER), count, length))
                reader.start()
                fills.append(place.fill([reader], files, threads=BIG_THREADS))
                from_origin += origin_bytes(reader)
                reader.wipe()
    finally:
        for node in nodes:
            node.wipe()
    for fill in fills:
        if fill.bad:
            raise RuntimeError(f"{fill.bad} bad reads: {fill.first_error}")
    return limits, fills, from_origin
