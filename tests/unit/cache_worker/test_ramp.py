"""Few large reads at once where the link is the limit, many where a connection is."""

from hypothesis import given
from hypothesis import strategies as st

from cache_worker.ramp import FIRST, MOST, RETRY_SECONDS, Ramp
from cacheop.api.chunk import CHUNK_BYTES


def run(ramp, seconds_with, reads, now=0.0):
    """So many reads one after the other, each of which takes `seconds_with(limit)`."""
    limits = []
    for _ in range(reads):
        took = seconds_with(ramp.limit)
        now += took / ramp.limit
        ramp.ended(now, CHUNK_BYTES, took)
        limits.append(ramp.limit)
    return now, limits


def thin_link(limit):
    """Four seconds for two at once: all share the link."""
    return 2.0 * limit


def thin_connections(limit):
    """Each takes three seconds, however many there are."""
    return 3.0


def test_behind_a_thin_link_few_are_read_at_once():
    ramp = Ramp()
    now, limits = run(ramp, thin_link, 24)
    assert max(limits) == 2 * FIRST  # it tried
    assert ramp.limit == FIRST
    _, later = run(ramp, thin_link, 40, now)
    assert sum(limit > FIRST for limit in later) < 20  # and tries again, now and then


def test_behind_thin_connections_many_are_read_at_once():
    ramp = Ramp()
    run(ramp, thin_connections, 400)
    assert ramp.limit == MOST


def test_quick_reads_let_more_begin_at_once():
    ramp = Ramp()
    now, _ = run(ramp, lambda limit: 0.1, 40)
    assert ramp.limit == MOST
    assert now < 1


def test_a_try_that_was_in_vain_is_not_made_again_soon():
    ramp = Ramp()
    now, _ = run(ramp, thin_link, 24)
    for _ in range(20):
        ramp.ended(now + RETRY_SECONDS / 2, CHUNK_BYTES, 4.0)
        assert ramp.limit == FIRST


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(1, CHUNK_BYTES), st.floats(0, 60))))
def test_there_is_always_a_sane_limit(reads):
    ramp, now = Ramp(), 0.0
    for wait, length, took in reads:
        now += wait
        ramp.ended(now, length, took)
        assert FIRST <= ramp.limit <= MOST
