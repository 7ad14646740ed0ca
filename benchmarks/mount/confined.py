"""More data than memory: reader and cacheop each in a cgroup of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.mount.figures import Series
from benchmarks.mount.goals import CONFINED, KILLED
from benchmarks.mount.groups import limited
from benchmarks.mount.machine import drop_caches
from benchmarks.mount.systems import AUTO, ext4, fill, mounted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.mount.groups import Group
    from benchmarks.mount.place import Place

READERS = 4
WORKER_LIMIT_BYTES = 512 << 20
"""The chart's limit: worker, supervisor, mount processes and holder together."""


def measure(place: Place) -> Iterator[Series]:
    """Each mode and Auto's choice, beside ext4 with the reader under the same limit."""
    fill(place)
    for mode in (*place.modes, *({AUTO} - set(place.modes))):
        drop_caches()
        with (
            place.attempt(f"confined, {mode}"),
            limited("worker", WORKER_LIMIT_BYTES) as ours,
        ):
            yield from _one(place, mode, ours)


def _one(place: Place, mode: str, ours: Group) -> list[Series]:
    with mounted(place, mode, procs=[ours.procs]) as cacheop:
        system = cacheop.system(mode)
        row = Series(CONFINED, mode, "MB/s", system.mode)
        killed = 0
        for seed in range(place.sizes.few_rounds):
            for one, found in ((ext4(place), row.beside), (system, row.samples)):
                with limited("reader", place.sizes.reader_limit_bytes) as theirs:
                    procs = [theirs.procs]
                    found.append(
                        place.run(one, place.everything, readers=READERS, seed=seed, procs=procs)
                    )
                    killed += theirs.kills()
        killed += ours.kills()
        row.note = (
            f"{place.sizes.all_bytes / 1e9:.1f} GB, {READERS} readers in a group of "
            f"{place.sizes.reader_limit_bytes >> 20} MiB; cacheop's group, of "
            f"{WORKER_LIMIT_BYTES >> 20}, held {ours.peak_bytes() >> 20} at most, with pages"
        )
    return [row, Series(KILLED, mode, "processes", system.mode, values=[killed])]
