"""Walks over many entries that nobody has looked at since the caches were dropped."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from resource import RUSAGE_CHILDREN, getrusage
from typing import TYPE_CHECKING

from benchmarks.list_stub import key_of
from benchmarks.manifest import list_stub
from benchmarks.mount.figures import Sample, Series
from benchmarks.mount.machine import cpu_by_name, drop_caches
from benchmarks.mount.systems import AUTO, System, mounted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from benchmarks.mount.place import Place

WALK_SECONDS = 300


def measure(place: Place) -> Iterable[Series]:
    """`ls -lR` beside ext4, `find` over ten times as many."""
    listed, found = place.sizes.listed
    yield from _local(place, f"ls -lR of {listed:,}", listed)
    yield from _ours(place, f"ls -lR of {listed:,}", "ls -lR {} >/dev/null", listed)
    yield from _ours(place, f"find over {found:,}", "find {} | wc -l", found)


def _local(place: Place, what: str, entries: int) -> list[Series]:
    folder = place.directory / "listed"
    for number in range(entries):
        path = folder / key_of(number, entries, siblings=False)
        if number % 1000 == 0:
            path.parent.mkdir(parents=True)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
    rows = list(_walks(place, System("ext4", folder), what, "ls -lR {} >/dev/null", entries))
    shutil.rmtree(folder)
    return rows


def _ours(place: Place, what: str, walk: str, entries: int) -> list[Series]:
    with list_stub(entries) as endpoint:
        name = f"listed-{entries}"
        options = {"endpoint_url": endpoint, "anon": True}
        file = place.setting.dataset(name, "stub", options=options)
        with mounted(place, AUTO, file=file, name=name) as cacheop:
            return list(_walks(place, cacheop.system(AUTO), what, walk, entries))


def _walks(place: Place, system: System, what: str, walk: str, entries: int) -> Iterable[Series]:
    """The first walk of a dropped cache, and the next one."""
    first = Series(what, system.name, "s", system.mode)
    again = Series(f"{what}, again", system.name, "s", system.mode)
    for _ in range(place.sizes.few_rounds):
        drop_caches()
        for row in (first, again):
            sample = _walk(system, walk, entries)
            row.samples.append(sample)
            row.values.append(sample.seconds)
    return first, again


def _walk(system: System, walk: str, entries: int) -> Sample:
    processes = system.processes()
    before, own = cpu_by_name(processes), getrusage(RUSAGE_CHILDREN)
    started = time.monotonic()
    told = subprocess.run(
        ["/bin/sh", "-c", walk.format(system.root)],
        check=True,
        stdout=subprocess.PIPE,
        timeout=WALK_SECONDS,
    ).stdout
    seconds = time.monotonic() - started
    after, now = cpu_by_name(processes), getrusage(RUSAGE_CHILDREN)
    if told and int(told) < entries:
        raise RuntimeError(f"{walk} of {system.root} found {int(told)} of {entries} entries")
    spent = {name: after[name] - before[name] for name in before}
    spent["reader"] = now.ru_utime + now.ru_stime - own.ru_utime - own.ru_stime
    return Sample(seconds, entries, 0, spent)
