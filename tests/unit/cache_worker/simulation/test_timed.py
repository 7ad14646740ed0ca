import random

import pytest

from cache_worker.eviction.auto import Auto
from cache_worker.planning.planning import AT_ONCE
from cache_worker.simulation.timed import Origin, TimedJob

CHUNKS, EPOCHS, LATENCY, RATE = 4000, 5, 0.05, 1000
WARM_EPOCHS = 2
"""The first reads all from the origin, and the second begins without a lead."""


def busy(*, cached, load, planned=True, at_once=AT_ONCE):
    origin = Origin(LATENCY, (1 - cached) * RATE / load)
    job = TimedJob(
        Auto(),
        CHUNKS,
        int(cached * CHUNKS),
        origin,
        reads_per_second=RATE,
        at_once=at_once,
        planned=planned,
    )
    dice = random.Random(20262)
    return job.run([dice.sample(range(CHUNKS), CHUNKS) for _ in range(EPOCHS)])


@pytest.mark.parametrize(("cached", "load"), [(0.5, 0.8), (0.5, 0.95), (0.9, 0.8)])
def test_a_job_with_a_plan_is_kept_busy(cached, load):
    assert min(busy(cached=cached, load=load)[WARM_EPOCHS:]) >= 0.97


def test_without_a_plan_it_waits_for_each_miss():
    assert max(busy(cached=0.5, load=0.8, planned=False)) < 0.05


def test_where_the_origin_is_too_slow_its_bandwidth_is_the_limit():
    found = busy(cached=0.5, load=1.25)
    assert all(0.75 <= share <= 0.81 for share in found[WARM_EPOCHS:])
