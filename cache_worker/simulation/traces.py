"""Traces as training makes them, from a seed.

The kinds are those of the papers on caching for training; each takes the number of chunks and a
seed, so that what is shown is not what thresholds were tuned on.
"""

from __future__ import annotations

import itertools
from array import array
from random import Random
from typing import TYPE_CHECKING

from cache_worker.simulation.trace import Trace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Reads = tuple["array[int]", "array[int]"]
"""(streams, chunks)."""


def permutations(dice: Random, chunks: int, epochs: int, first: int = 0) -> array[int]:
    """Every chunk once an epoch, in another order each time."""
    order, reads = list(range(first, first + chunks)), array("I")
    for _ in range(epochs):
        dice.shuffle(order)
        reads.extend(order)
    return reads


def zipf_reads(dice: Random, chunks: int, alpha: float, count: int, first: int = 0) -> array[int]:
    """The chunk of rank r with probability ~ r^-alpha; ranks lie anywhere."""
    order = list(range(first, first + chunks))
    dice.shuffle(order)
    weights = list(itertools.accumulate((rank + 1) ** -alpha for rank in range(chunks)))
    return array("I", dice.choices(order, cum_weights=weights, k=count))


def interleaved(
    dice: Random, orders: Sequence[Sequence[int]], speeds: Sequence[float] | None = None
) -> Reads:
    """Streams that go on side by side; ends with the first of them, so the mix stays the same."""
    at = [0] * len(orders)
    streams, slots = array("I"), array("I")
    chosen = range(len(orders))
    weights = list(itertools.accumulate(speeds or [1.0] * len(orders)))
    while True:
        for stream in dice.choices(chosen, cum_weights=weights, k=4096):
            if at[stream] == len(orders[stream]):
                return streams, slots
            streams.append(stream)
            slots.append(orders[stream][at[stream]])
            at[stream] += 1


def alone(slots: Sequence[int]) -> Reads:
    """One stream."""
    return array("I", bytes(4 * len(slots))), array("I", slots)


def epochs(seed: int, chunks: int) -> Trace:
    """Shuffled epochs."""
    reads = alone(permutations(Random(seed), chunks, 16))
    return Trace("epochs", *reads, (range(chunks),), warm=8 * chunks)


def same_order(seed: int, chunks: int) -> Trace:
    """The same order in every epoch: evaluation, or `set_epoch` forgotten."""
    one = permutations(Random(seed), chunks, 1)
    return Trace("same order", *alone(one * 16), (range(chunks),), warm=8 * chunks)


def zipf(alpha: float) -> Callable[[int, int], Trace]:
    """Popularity by Zipf's law."""

    def make(seed: int, chunks: int) -> Trace:
        reads = zipf_reads(Random(seed), chunks, alpha, 40 * chunks)
        return Trace(
            f"zipf {alpha}",
            *alone(reads),
            (range(chunks),),
            warm=20 * chunks,
            shares=(0.01, 0.05, 0.1, 0.25, 0.5),
        )

    return make


def scan(seed: int, chunks: int) -> Trace:
    """Zipf 1.0 on half as many chunks, and 30 % of the reads are of what nobody reads again."""
    dice, hot = Random(seed), chunks // 2
    reads = zipf_reads(dice, hot, 1.0, 24 * chunks)
    fresh = hot
    for at in range(len(reads)):
        if dice.random() < 0.3:
            reads[at] = fresh
            fresh += 1
    return Trace(
        "scan",
        *alone(reads),
        (range(fresh),),
        warm=len(reads) // 2,
        basis=hot,
        shares=(0.02, 0.05, 0.1, 0.2, 0.4),
    )


def growing(seed: int, chunks: int) -> Trace:
    """A curriculum: epochs over the easiest 20 %, and 8 % more each time."""
    dice, reads = Random(seed), array("I")
    order = list(range(chunks))
    dice.shuffle(order)
    for epoch in range(16):
        part = order[: int(chunks * min(1.0, 0.2 + 0.08 * epoch))]
        dice.shuffle(part)
        reads.extend(part)
    return Trace("growing subset", *alone(reads), (range(chunks),), warm=int(0.2 * chunks))


def _hot_and_epochs(seed: int, chunks: int) -> Reads:
    dice, hot = Random(seed), chunks // 5
    cold = chunks - hot
    return interleaved(
        dice,
        [zipf_reads(dice, hot, 1.0, 14 * chunks), permutations(dice, cold, 16, hot)],
    )


def two_datasets(seed: int, chunks: int) -> Trace:
    """Half the reads Zipf 1.0 over a fifth of the chunks, half epochs over the rest, told apart."""
    streams, slots = _hot_and_epochs(seed, chunks)
    versions = (range(chunks // 5), range(chunks // 5, chunks))
    return Trace("hot spots + epochs", streams, slots, versions, warm=len(slots) // 2)


def hot_spots_and_epochs(seed: int, chunks: int) -> Trace:
    """The same in one Dataset, and nobody tells the two streams apart."""
    _, slots = _hot_and_epochs(seed, chunks)
    name = "hot spots + epochs, merged"
    return Trace(name, *alone(slots), (range(chunks),), warm=len(slots) // 2)


def importance(seed: int, chunks: int) -> Trace:
    """Importance sampling with replacement: log-normal weights, a tenth drawn anew each epoch."""
    dice, reads = Random(seed), array("I")
    weights = [dice.lognormvariate(0.0, 1.0) for _ in range(chunks)]
    for _ in range(20):
        for chunk in dice.sample(range(chunks), chunks // 10):
            weights[chunk] = dice.lognormvariate(0.0, 1.0)
        reads.extend(dice.choices(range(chunks), weights, k=chunks))
    return Trace("importance sampling", *alone(reads), (range(chunks),), warm=8 * chunks)


def dataset_change(seed: int, chunks: int) -> Trace:
    """Five epochs over one version, then six over another; the last four count."""
    dice = Random(seed)
    reads = permutations(dice, chunks, 5) + permutations(dice, chunks, 6, chunks)
    versions = (range(chunks), range(chunks, 2 * chunks))
    return Trace("dataset change", *alone(reads), versions, warm=7 * chunks, basis=chunks)


def shards(seed: int, chunks: int) -> Trace:
    """64 samples in a chunk, samples shuffled, so that a chunk is read 64 times an epoch."""
    dice, samples, big = Random(seed), 64, max(1, chunks // 20)
    reads = array("I", (s // samples for s in permutations(dice, big * samples, 8)))
    lengths = [samples] * big
    sizes = array("Q", [1]) * len(reads)
    warm = 4 * big * samples
    return Trace("shards", *alone(reads), (range(big),), warm, lengths=lengths, read_bytes=sizes)


def jobs(
    count: int, *, speeds: Sequence[float] | None = None, plans: bool = False, common: bool = False
) -> Callable[[int, int], Trace]:
    """Jobs that share a Dataset, each in its own order or all in one, with or without plans."""

    def make(seed: int, chunks: int) -> Trace:
        dice = Random(seed)
        size, rounds = chunks // 2, 24 if speeds else 16
        one = permutations(dice, size, rounds)
        orders = [one if common else permutations(dice, size, rounds) for _ in range(count)]
        reads = interleaved(dice, orders, speeds)
        name = f"{count} jobs" + (", one order" if common else "")
        name += ", speeds " + ":".join(f"{s:g}" for s in speeds) if speeds else ""
        return Trace(
            name + (", plans" if plans else ""),
            *reads,
            (range(size),),
            warm=len(reads[1]) // 2,
            plans=plans,
            epoch_reads=size,
        )

    return make


def merged_jobs(seed: int, chunks: int) -> Trace:
    """Four jobs that nobody tells apart."""
    known = jobs(4)(seed, chunks)
    return Trace("4 jobs, merged", *alone(known.slots), known.versions, warm=known.warm)


TRACES: dict[str, Callable[[int, int], Trace]] = {
    "epochs": epochs,
    "same-order": same_order,
    "zipf-0.9": zipf(0.9),
    "zipf-1.0": zipf(1.0),
    "zipf-1.1": zipf(1.1),
    "zipf-1.2": zipf(1.2),
    "scan": scan,
    "growing": growing,
    "two-datasets": two_datasets,
    "hot-and-epochs": hot_spots_and_epochs,
    "importance": importance,
    "dataset-change": dataset_change,
    "shards": shards,
    "4-jobs": jobs(4),
    "4-jobs-merged": merged_jobs,
    "4-jobs-speeds": jobs(4, speeds=(1, 2, 3, 4)),
    "8-jobs": jobs(8),
    "4-jobs-plans": jobs(4, plans=True),
    "4-jobs-one-order": jobs(4, plans=True, common=True),
}
