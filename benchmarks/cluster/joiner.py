"""A fifth node joins with an empty cache while four read a cold Dataset."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from benchmarks.cluster.cold import bad
from benchmarks.cluster.place import origin_bytes, wait_filled
from benchmarks.report import Row, at_most
from tests.fakes.lab.nodes import running
from tests.fakes.lab.readers import Readers

if TYPE_CHECKING:
    from benchmarks.cluster.place import Place
    from tests.fakes.lab.readers import Seen


def measure(place: Place) -> list[Row]:
    """Bytes from the origin, of all five."""
    files, what = place.medium, "a fifth node joins cold, half-way"
    place.shape(place.sizes.medium_mbit)
    *first, joiner = place.nodes(5, files)

    late: list[Seen] = []
    readers: Readers | None = None

    def join(*_: object) -> None:
        nonlocal readers
        wait_filled(first[0], files, 0.5)
        joiner.start()
        readers = Readers([joiner], files, seed=2)
        readers.start()

    try:
        with running(first):
            fill = place.fill(first, files, during=join)
            assert readers
            late = readers.results()
            total = sum(origin_bytes(node) for node in [*first, joiner])
            own = origin_bytes(joiner) / files.total_bytes
    finally:
        if readers:
            readers.close()
        joiner.wipe()
    fill.seen += late
    note = f"the joiner's: {own:.3f} x; {fill.load}"
    ratio = total / files.total_bytes
    return [
        replace(at_most(f"{what}: origin bytes", "x Dataset", [ratio], 1.01), note=note),
        bad(what, [fill]),
    ]
