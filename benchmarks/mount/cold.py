"""Files that come from the origin while they are read, beside `cacheop load` of the same files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.mount.figures import Sample, Series
from benchmarks.mount.goals import BIG_COLD, COLD, with_readers
from benchmarks.mount.machine import cpu_by_name, drop_caches, read_ahead
from benchmarks.mount.systems import AUTO, mounted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.mount.fleet import Item
    from benchmarks.mount.place import Place
    from benchmarks.mount.systems import Cacheop

MANY = 8
LOAD = "load"
LEAST_FROM_ORIGIN = 0.99


def measure(place: Place) -> Iterator[Series]:
    """Small files by many readers, the big one by one that reads on and on."""
    with mounted(place, AUTO) as cacheop:
        for what, folder, items, readers, unit in (
            (with_readers(COLD, MANY), "small", place.small, MANY, "files/s"),
            (BIG_COLD, "big", place.big, 1, "MB/s"),
        ):
            row = Series(what, AUTO, unit, cacheop.system(AUTO).mode, baseline=LOAD)
            for seed in range(place.sizes.few_rounds + 1):
                row.beside.append(loaded(place, cacheop, folder, items))
                row.samples.append(read(place, cacheop, folder, items, readers, seed))
            place.verify(cacheop.system(AUTO), items)
            yield row


def loaded(place: Place, cacheop: Cacheop, folder: str, items: Sequence[Item]) -> Sample:
    """What the store can fill."""
    _only_at_the_origin(place, cacheop, folder)
    processes = cacheop.processes()
    before = cpu_by_name(processes)
    rate = cacheop.load(folder)
    after = cpu_by_name(processes)
    total = sum(length for _, _, length in items)
    spent = {name: after[name] - before[name] for name in before}
    return Sample(total / rate, len(items), total, spent)


def read(
    place: Place, cacheop: Cacheop, folder: str, items: Sequence[Item], readers: int, seed: int
) -> Sample:
    """Read through the mount what nobody has here. Raises RuntimeError if somebody had."""
    _only_at_the_origin(place, cacheop, folder)
    before = int(cacheop.status()["origin_bytes"])
    sample = place.run(cacheop.system(AUTO), items, readers=readers, seed=seed)
    came = int(cacheop.status()["origin_bytes"]) - before
    if came < LEAST_FROM_ORIGIN * sample.bytes:
        raise RuntimeError(f"only {came:,} of {sample.bytes:,} bytes came from the origin")
    return sample


def _only_at_the_origin(place: Place, cacheop: Cacheop, folder: str) -> None:
    """Nothing of it is here, and the S3 server has it in memory.

    The server's disk is not what is measured: `load` asks in the order in which the files lie on
    it, readers at random.
    """
    cacheop.evict(folder)
    drop_caches()
    read_ahead(place.setting.s3.directory)
