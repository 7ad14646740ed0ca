"""One of four nodes gives bytes that are not those whose checksum was recorded."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from benchmarks.cluster.cold import bad
from benchmarks.report import Row, shown
from tests.fakes.lab.held import flip, held_chunks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.cluster.place import Fill, Place
    from tests.fakes.lab.nodes import LabNode

FALSE = "n3"
FLIP_AFTER_BYTES = 1 << 20


def measure(place: Place) -> list[Row]:
    """Wrong bytes at the other three, and whether the false node was banned."""
    return [*_on_disk(place), *_on_the_wire(place)]


def _on_disk(place: Place) -> list[Row]:
    """Its whole share is spoiled on its disk, a bit in each chunk, before the others read."""
    files = place.medium
    place.shape(place.sizes.medium_mbit)
    with place.running(4, files) as nodes:
        *others, false = nodes
        place.fill([false], files)
        for held in held_chunks(false):
            flip(false, held)
        fill = place.fill(others, files)
        return _rows("bits flipped on a peer's disk", others, fill, false)


def _on_the_wire(place: Place) -> list[Row]:
    """What it sends is changed on the way."""
    files = place.medium
    place.shape(place.sizes.medium_mbit)
    with place.running(4, files) as nodes:
        *others, false = nodes
        with false.interposed(flip_after=FLIP_AFTER_BYTES):
            fill = place.fill(others, files)
            return _rows("bits flipped on a peer's wire", others, fill, false)


def _rows(what: str, others: Sequence[LabNode], fill: Fill, false: LabNode) -> list[Row]:
    bans = sum(node.status()["peer"]["bans"] for node in others)
    origin = sum(fill.origin_bytes.values()) + false.metric("cacheop_origin_bytes_total")
    read = sum(seen.bytes for seen in fill.seen) / len(others)
    return [
        bad(f"{what}: the other three", [fill]),
        Row(f"{what}: bans", bans, "", None, None, ">= 1", bans >= 1),
        replace(shown(f"{what}: the others' fill", "s", fill.seconds), note=str(fill.load)),
        shown(f"{what}: origin bytes", "x Dataset", origin / read if read else 0.0),
    ]
