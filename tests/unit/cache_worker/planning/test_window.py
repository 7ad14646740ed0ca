import pytest

from cache_worker.planning.window import (
    LEAST_READS,
    MOST_READS,
    Latencies,
    Pace,
    budget_bytes,
    window_reads,
)


@pytest.mark.parametrize(
    ("rate", "latency", "bandwidth", "least"),
    # The formula's own figures: R (L99 + 10 / B) for load 0.95 and 0.8 of papers.md.
    [(1000, 0.05, 526, 69), (1000, 0.05, 125, 130), (2000, 0.1, 2000, 210)],
)
def test_the_window_is_the_formulas_with_headroom(rate, latency, bandwidth, least):
    assert least <= window_reads(rate, latency, bandwidth) <= 2 * least + 2


def test_the_window_has_limits():
    assert window_reads(0, 9, 0) == LEAST_READS
    assert window_reads(0.1, 0.01, 5) == LEAST_READS
    assert window_reads(1e6, 10, 1) == MOST_READS
    assert budget_bytes(400) == 100


def test_a_pace_is_measured_and_a_pause_is_none():
    pace = Pace()
    for tenth in range(21):
        pace.count(tenth / 10, 50)
    assert pace.per_second == pytest.approx(500, rel=0.05)
    pace.count(60.0, 1)
    pace.count(60.3, 150)
    assert pace.per_second == pytest.approx(500, rel=0.05)


def test_the_slowest_of_the_last_fetches_counts():
    latencies = Latencies()
    assert latencies.slow_seconds == 0
    for seconds in (0.1, 0.5, *[0.2] * 63):
        latencies.add(seconds)
    assert latencies.slow_seconds == 0.5
    latencies.add(0.1)
    assert latencies.slow_seconds == 0.2
