"""Small files: warm, from disk, and what a warm epoch costs in requests and in page cache."""

from __future__ import annotations

import math
import os
import time
from typing import TYPE_CHECKING

from benchmarks.mount.figures import Series
from benchmarks.mount.goals import (
    COLD,
    DISK,
    ONCE,
    OTHER_REQUESTS,
    READERS,
    REQUESTS,
    WARM,
    with_readers,
)
from benchmarks.mount.juicefs import FLAGS, volume
from benchmarks.mount.machine import PAGE_BYTES, cached_bytes_of_all, drop_caches
from benchmarks.mount.systems import ext4, fill, mounted
from benchmarks.setting import SMALL_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.mount.place import Place
    from benchmarks.mount.systems import Cacheop, System

MANY = 8
SETTLE_SECONDS = 3.0
"""What serves may give its own pages back a little later."""
RATE = "files/s"
EXPECTED_REQUESTS = {"OPEN", "RELEASE"}
DISK_NOTE = "page cache, dentries and inodes dropped, then stat of every file; cold: data"


def measure(place: Place) -> Iterator[Series]:
    """Each mode beside ext4, then JuiceFS with either set of flags."""
    fill(place)
    for mode in place.modes:
        with place.attempt(f"small files, {mode}"), mounted(place, mode) as cacheop:
            system = cacheop.system(mode)
            place.verify(system, place.small)
            yield from warm(place, system, place.sizes.rounds)
            yield from requests(place, cacheop, system)
            yield disk(place, system)
            yield once(place, system, stored(place, cacheop))
    with (
        place.attempt("small files, JuiceFS"),
        volume(place, "juicefs-small", place.small) as juicefs,
    ):
        for flags in FLAGS:
            with juicefs.mounted(flags) as system:
                if flags == next(iter(FLAGS)):
                    cold = Series(with_readers(COLD, MANY), system.name, RATE, system.mode)
                    cold.samples.append(place.run(system, place.small, readers=MANY))
                    yield cold
                place.verify(system, place.small)
                yield from warm(place, system, place.sizes.few_rounds)
                yield disk(place, system)
                yield once(place, system, juicefs.cached_files())


def warm(place: Place, system: System, rounds: int) -> list[Series]:
    """Everything in the page cache, ext4 and the system in turn."""
    local = ext4(place)
    place.read_in((local, system), place.small)
    rows = []
    for readers in READERS:
        row = Series(with_readers(WARM, readers), system.name, RATE, system.mode)
        for seed in range(rounds):
            row.beside.append(place.run(local, place.small, readers=readers, seed=seed))
            row.samples.append(place.run(system, place.small, readers=readers, seed=seed))
        rows.append(row)
    return rows


def disk(place: Place, system: System) -> Series:
    """Nothing of the data in the page cache, metadata warm for all alike."""
    row = Series(with_readers(DISK, MANY), system.name, RATE, system.mode, note=DISK_NOTE)
    for seed in range(place.sizes.few_rounds + 1):
        for one, found in ((ext4(place), row.beside), (system, row.samples)):
            drop_caches()
            place.look(one, place.small)
            found.append(place.run(one, place.small, readers=MANY, seed=seed))
    return row


def requests(place: Place, cacheop: Cacheop, system: System) -> list[Series]:
    """What a warm epoch asks of Python, as status counts it."""
    before = cacheop.requests()
    place.run(system, place.small, readers=MANY)
    after = cacheop.requests()
    seen = {op: count - before.get(op, 0) for op, count in after.items()}
    seen = {op: count for op, count in seen.items() if count}
    others = sum(count for op, count in seen.items() if op not in EXPECTED_REQUESTS)
    total: float = sum(seen.values())
    note = ", ".join(f"{op} {count:,}" for op, count in sorted(seen.items())) or "none"
    if not after and system.name != "Native":
        total, note = math.inf, "status tells of no requests at all, not even of the mount's first"
    rows = [Series(REQUESTS, system.name, "", system.mode, values=[total], note=note)]
    if system.name == "Passthrough":
        rows.append(Series(OTHER_REQUESTS, system.name, "", system.mode, values=[others]))
    return rows


def stored(place: Place, cacheop: Cacheop) -> list[str]:
    """The small files as the store has them."""
    status = cacheop.status()
    data = os.path.join(status["root"], "data", status["version"])
    return [f"{data}/{path}" for path, _, _ in place.small]


def once(place: Place, system: System, behind: list[str]) -> Series:
    """How often a file is in the page cache after an epoch: through the mount and behind it."""
    drop_caches()
    sample = place.run(system, place.small, readers=MANY)
    time.sleep(SETTLE_SECONDS)
    through = [f"{system.root}/{path}" for path, _, _ in place.small]
    whole = sample.files * -(-SMALL_BYTES // PAGE_BYTES) * PAGE_BYTES
    total = cached_bytes_of_all([*through, *behind])
    parts = f"mount {cached_bytes_of_all(through) / whole:.2f}, "
    parts += f"behind it {cached_bytes_of_all(behind) / whole:.2f}"
    return Series(ONCE, system.name, "x", system.mode, values=[total / whole], note=parts)
