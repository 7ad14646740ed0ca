"""Quantiles of the last latencies."""

from hypothesis import given
from hypothesis import strategies as st

from cache_worker.cluster.latencies import WINDOW_SAMPLES, WINDOW_SECONDS, Latencies


def test_nothing_is_said_before_there_are_enough():
    latencies = Latencies()
    for k in range(3):
        latencies.add(0.0, float(k))
    assert latencies.quantile(0.0, 0.5) is None
    assert latencies.quantile(0.0, 0.5, enough=3) == 1.0
    assert latencies.quantile(0.0, 0.99, enough=1) == 2.0


def test_what_is_old_is_forgotten():
    latencies = Latencies()
    latencies.add(0.0, 5.0)
    latencies.add(WINDOW_SECONDS, 1.0)
    assert latencies.quantile(WINDOW_SECONDS + 1, 1.0, enough=1) == 1.0
    assert latencies.quantile(2 * WINDOW_SECONDS + 1, 1.0, enough=1) is None


@given(st.lists(st.floats(0, 100), min_size=1, max_size=3 * WINDOW_SAMPLES), st.floats(0.01, 1))
def test_so_many_of_the_last_ones_are_not_longer(values, part):
    latencies = Latencies()
    for value in values:
        latencies.add(0.0, value)
    last = values[-WINDOW_SAMPLES:]
    found = latencies.quantile(0.0, part, enough=1)
    assert sum(value <= found for value in last) >= part * len(last)
    assert found in last
