"""`./dev demo-plan`: how long training waits for data in its first epoch, without and with a plan.

The accelerator is emulated: a step sleeps as long as a batch would take at the wanted rate. The
origin is 30 ms away and has RATIO times the bandwidth that the rate needs, no more.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from examples.demo import data
from examples.demo.interrupts import held_back
from examples.demo.main import default_cache
from examples.demo.ways import NAME, Demo, Plan

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

BATCH_IMAGES = 32
PROCESSES = 4
SEED = 11
MOST_WAIT = 0.10
FULL = data.Recipe(images=6000, shards=1, shard_bytes=1 << 20)


@dataclass(frozen=True, slots=True)
class Result:
    """One first epoch. `origin_ratio`: origin bytes / bytes read."""

    way: str
    samples: int
    wall_seconds: float
    wait_seconds: float
    first_seconds: float
    """The part of it before the first batch: the loader's processes start."""
    origin_ratio: float

    @property
    def wait_share(self) -> float:
        """The part of the time in which the step waited for data."""
        return self.wait_seconds / self.wall_seconds


def epoch(
    demo: Demo, keys: Sequence[str], *, per_second: float, planned: bool, mount: bool = False
) -> Result:
    """One epoch from an empty cache, read by loader processes one file after the other."""
    # Before the fork, so that not each loader process does it in the first epoch's time.
    import numpy as np  # noqa: F401
    import torch
    from PIL import Image  # noqa: F401
    from torch.utils.data import DataLoader, DistributedSampler

    import cacheop.client.filesystem  # noqa: F401
    from cacheop.torch import PlannedSampler
    from examples.demo.train import Images, Source, _collate, _own_signals

    torch.set_num_threads(1)
    demo.cacheop("evict", NAME, "--yes")
    before = int(demo.status()["origin_bytes"])
    context = multiprocessing.get_context("fork")
    source = Source("file", f"{demo.mountpoint}/") if mount else Source("cacheop", f"{NAME}/")
    images = Images(source, keys, context.Event())
    sampler: Any = DistributedSampler(images, num_replicas=1, rank=0, seed=SEED)
    if planned:
        sampler = PlannedSampler(sampler, [f"{source.root}{key}" for key in keys])
    loader = DataLoader(
        images,
        batch_size=BATCH_IMAGES,
        sampler=sampler,
        num_workers=PROCESSES,
        collate_fn=_collate,
        timeout=120,
        multiprocessing_context=context,
        worker_init_fn=_own_signals,
    )
    waited, first, samples, payload_bytes = 0.0, 0.0, 0, 0
    began = time.perf_counter()
    with held_back():
        batches = iter(loader)
    while True:
        start = time.perf_counter()
        batch = next(batches, None)
        waited += time.perf_counter() - start
        first = first or waited
        if batch is None:
            break
        samples += len(batch[1])
        payload_bytes += batch[2]
        time.sleep(len(batch[1]) / per_second)
    wall = time.perf_counter() - began
    if planned:
        sampler.close()
    fetched = int(demo.status()["origin_bytes"]) - before
    way = "with a plan" if planned else "without"
    return Result(way, samples, wall, waited, first, fetched / payload_bytes)


def show(results: Sequence[Result], per_second: float, plan: Plan) -> None:
    """A line for each way."""
    sys.stdout.write(
        f"wanted: {per_second:,.0f} samples/s; origin: {1000 * plan.delay_seconds:.0f} ms away, "
        f"{plan.bits_per_second / 1e6:.1f} Mbit/s; {PROCESSES} loader processes\n"
        f"{'first epoch':14}{'samples':>9}{'samples/s':>11}{'data wait':>11}"
        f"{'first batch':>13}{'origin':>9}\n"
    )
    for result in results:
        sys.stdout.write(
            f"{result.way:14}{result.samples:9,}{result.samples / result.wall_seconds:11,.0f}"
            f"{result.wait_share:11.1%}{result.first_seconds:11.1f} s{result.origin_ratio:7.2f} x\n"
        )


def run(
    recipe: data.Recipe, cache: Path, *, per_second: float, ratio: float, delay: float, mount: bool
) -> int:
    """Both ways; exit code 1 when training with a plan waits too long."""

    def say(text: str) -> None:
        sys.stderr.write(f"demo: {text}\n")
        sys.stderr.flush()

    folder = cache / f"{recipe.images}-{recipe.shards}"
    data.make(folder, recipe)
    keys = data.image_keys(recipe)
    mean_bytes = sum((folder / "data" / key).stat().st_size for key in keys) / len(keys)
    plan = Plan(recipe, delay_seconds=delay, bits_per_second=8 * ratio * per_second * mean_bytes)
    results = []
    with Demo(plan, cache, say) as demo:
        for planned in (False, True):
            say(f"an epoch {'with' if planned else 'without'} a plan")
            results.append(epoch(demo, keys, per_second=per_second, planned=planned, mount=mount))
    show(results, per_second, plan)
    late = results[-1].wait_share > MOST_WAIT
    if late:
        say(f"WRONG: with a plan {results[-1].wait_share:.0%} of the time is waiting, not 10 %")
    return 1 if late else 0


def main() -> int:
    """Command line of the demo."""
    parser = argparse.ArgumentParser(prog="./dev demo-plan", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="600 images instead of 6,000")
    parser.add_argument("--rate", type=float, default=200.0, help="samples a second (200)")
    parser.add_argument("--ratio", type=float, default=1.25, help="bandwidth / what that needs")
    parser.add_argument("--delay-ms", type=float, default=30.0, help="of each request (30)")
    parser.add_argument("--mount", action="store_true", help="read through the mount (root)")
    given = parser.parse_args()
    try:
        return run(
            data.QUICK if given.quick else FULL,
            default_cache(),
            per_second=given.rate,
            ratio=given.ratio,
            delay=given.delay_ms / 1000,
            mount=given.mount,
        )
    except KeyboardInterrupt:
        return 130
    except (RuntimeError, OSError) as error:
        sys.stderr.write(f"demo: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
