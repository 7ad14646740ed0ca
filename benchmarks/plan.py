"""`python -m benchmarks.plan`: what a plan of ten million samples costs a worker and a trainer."""

from __future__ import annotations

import random
import resource
import sys
import tempfile
import time
from array import array
from pathlib import Path

from cache_worker.disk import Disk
from cache_worker.eviction.auto import Auto
from cache_worker.manifest import Builder, MountPoint
from cache_worker.origins import Listing
from cache_worker.planning.order import Order
from cache_worker.planning.planning import chunks_of, slots_of
from cache_worker.version_files import write_version
from cache_worker.versions import Versions
from cacheop.api.plan import SEGMENT_READS, Reads, unpack
from cacheop.client.tree import Tree

FILES, SAMPLES = 1_000_000, 10_000_000
AT_A_TIME = 10_000
STEPS, BATCH = 2000, 64


def resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def version(root: Path, files: int):  # noqa: ANN201
    builder = Builder([MountPoint("s3://bucket/", "/")])
    for first in range(0, files, AT_A_TIME):
        keys = [f"train/{n // 1000:05}/{n:08}.jpg" for n in range(first, first + AT_A_TIME)]
        tags = [f'"{n:032x}"' for n in range(first, first + AT_A_TIME)]
        same = [110_000] * len(keys), [10**18] * len(keys)
        builder.add(0, Listing(keys, *same, tags, [""] * len(keys)))
    versions = Versions(root, Disk())
    manifest = builder.finish()
    write_version(root, manifest)
    return versions.add(manifest.version)


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        made = version(Path(folder), FILES)
        rows = array("I", (r for r in range(made.index.rows) if not made.index.is_directory(r)))
        order = array("I")
        for _ in range(SAMPLES // FILES):
            order.extend(random.sample(rows, FILES))
        policy = Auto()
        policy.joined(1, made.slots_range())
        reads = Reads(order)
        before, began, longest = resident_bytes(), time.perf_counter(), 0.0
        told = Order(lambda row, first, count: chunks_of(made, row, first, count))
        for first in range(0, SAMPLES, SEGMENT_READS):
            kind, payload = reads.pack(first, min(SAMPLES, first + SEGMENT_READS))
            start = time.perf_counter()
            part = unpack(kind, payload)
            position = told.add(0, first, part, begin=first == 0)
            policy.planned(1, *slots_of(made, part, position), 1)
            longest = max(longest, time.perf_counter() - start)
        seconds = time.perf_counter() - began
        megabytes = (resident_bytes() - before) / 1e6
        print(
            f"worker: {SAMPLES:,} samples over {FILES:,} files taken in {seconds:.1f} s, at most "
            f"{1000 * longest:.0f} ms at a time; {megabytes:.0f} MB"
        )
        began = time.perf_counter()
        for place in range(0, STEPS * BATCH, BATCH):
            told.reached(0, place)
        each = (time.perf_counter() - began) / STEPS / BATCH
        print(f"worker: {1e6 * each:.1f} us a read as the sampler goes on")
        tree = Tree(made.index)
        paths = [made.index.path(row) for row in rows]
        began = time.perf_counter()
        found = array("I", (tree.file(path)[0] for path in paths))
        assert found == rows
        print(f"trainer: {FILES:,} paths to rows once: {time.perf_counter() - began:.1f} s")
        numbers = array("I", random.sample(range(FILES), FILES))
        began = time.perf_counter()
        assert len(array("I", map(found.__getitem__, numbers))) == FILES
        print(f"trainer: {FILES:,} indexes to rows each epoch: {time.perf_counter() - began:.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
