"""One big file, warm: by reads of 1 MiB and through a mapping."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.mount.figures import Series
from benchmarks.mount.goals import BIG_COLD, BIG_MAP, BIG_READ
from benchmarks.mount.juicefs import FLAGS, volume
from benchmarks.mount.systems import ext4, fill, mounted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.mount.place import Place
    from benchmarks.mount.systems import System

RATE = "MB/s"


def measure(place: Place) -> Iterator[Series]:
    """Each mode beside ext4, then JuiceFS."""
    fill(place)
    for mode in place.modes:
        with place.attempt(f"big file, {mode}"), mounted(place, mode) as cacheop:
            yield from warm(place, cacheop.system(mode), place.sizes.rounds)
    with place.attempt("big file, JuiceFS"), volume(place, "juicefs-big", place.big) as juicefs:
        for flags in FLAGS:
            with juicefs.mounted(flags) as system:
                if flags == next(iter(FLAGS)):
                    cold = Series(BIG_COLD, system.name, RATE, system.mode)
                    cold.samples.append(place.run(system, place.big))
                    yield cold
                yield from warm(place, system, place.sizes.few_rounds)


def warm(place: Place, system: System, rounds: int) -> list[Series]:
    """The first passes are not timed; then ext4 and the system in turn."""
    local = ext4(place)
    place.verify(system, place.big)
    place.read_in((local, system), place.big)
    rows = []
    for what, kind in ((BIG_READ, "read"), (BIG_MAP, "map")):
        row = Series(what, system.name, RATE, system.mode)
        for _ in range(rounds):
            row.beside.append(place.run(local, place.big, kind=kind))
            row.samples.append(place.run(system, place.big, kind=kind))
        rows.append(row)
    return rows
