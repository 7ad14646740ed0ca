"""Who sends slowly is found while it sends, whatever it is asked for."""

from hypothesis import given
from hypothesis import strategies as st

from cache_worker.cluster.pace import ENOUGH, FORGET_SECONDS, ORIGIN, SHORTEST_SECONDS, Pace

ENOUGH_BUSY_SECONDS = ENOUGH * SHORTEST_SECONDS


def sending(**rates):
    """Each asked for one thing that is under way for two seconds, at so many bytes a second."""
    pace = Pace()
    for node, rate in rates.items():
        pace.asks(0.0, node, 0)
        for step in range(1, 9):
            pace.saw(step / 4, node, step * rate // 4)
    return pace


def test_a_peer_behind_a_thin_link_is_found_before_its_first_chunk_is_here():
    pace = sending(slow=400_000, b=10_000_000, c=8_000_000)
    assert pace.is_slow(2.0, "slow")
    assert not pace.is_slow(2.0, "b")


def test_nobody_is_slow_alone_or_too_early_or_beside_as_slow_ones():
    assert not sending(a=1).is_slow(2.0, "a")
    assert not sending(a=1000, b=9000).is_slow(2.0, "a")
    pace = sending(b=10_000_000)
    pace.asks(2.0, "a", 0)
    pace.saw(2.0 + ENOUGH_BUSY_SECONDS / 2, "a", 0)
    assert not pace.is_slow(2.0 + ENOUGH_BUSY_SECONDS / 2, "a")


def test_where_the_origin_is_no_faster_it_is_no_help():
    rates = {"a": 400_000, "b": 10_000_000}
    assert sending(**rates).origin_may_be_faster(2.0, "a")
    assert sending(**rates, **{ORIGIN: 5_000_000}).origin_may_be_faster(2.0, "a")
    assert not sending(**rates, **{ORIGIN: 500_000}).origin_may_be_faster(2.0, "a")


def test_waiting_for_nothing_is_not_slowness():
    pace = sending(a=1_000_000, b=1_000_000)
    pace.ended(2.0, "a", 2_000_000)
    pace.saw(20.0, "a", 2_000_000)
    assert pace.bytes_per_second(20.0, "a") == 1_000_000


def test_it_is_tried_again_after_a_while():
    pace = sending(a=1, b=10_000_000)
    pace.ended(2.0, "a", 2)
    assert pace.is_slow(2.0, "a")
    assert not pace.is_slow(2.0 + FORGET_SECONDS + 1, "a")


@given(st.lists(st.tuples(st.floats(0, 3), st.booleans(), st.integers(0, 10**7)), max_size=60))
def test_rates_are_never_negative_nor_more_than_what_came(steps):
    pace, now, total, under_way = Pace(), 0.0, 0, 0
    for wait, ask, count in steps:
        now, total = now + wait, total + count
        if ask:
            pace.asks(now, "a", total)
            under_way += 1
        elif under_way:
            pace.ended(now, "a", total)
            under_way -= 1
        rate = pace.bytes_per_second(now, "a")
        assert rate is None or 0 <= rate <= total / ENOUGH_BUSY_SECONDS


def test_who_sends_nothing_may_wait_for_its_origin():
    assert not sending(a=0, b=10_000_000).is_slow(2.0, "a")


def test_the_origin_is_no_way_around_a_wait_that_is_as_long_there():
    pace = Pace()
    assert pace.origin_answers_within(0.0, 1.0)  # nothing is known of it
    for seconds in (4.0, 9.0):
        pace.origin.add(0.0, seconds)
    assert not pace.origin_answers_within(0.0, 8.0)
    assert pace.origin_answers_within(0.0, 10.0)


def test_an_owner_is_compared_over_the_time_of_a_few_chunks():
    pace = sending(b=4_000_000)
    pace.asks(0.0, "a", 0, 8_000_000)
    pace.saw(2.0, "a", 300_000)  # the end of a chunk; what comes next waits for the origin
    assert not pace.is_slow(2.0, "a")
    pace.saw(14.0, "a", 300_000)
    pace.saw(14.0, "b", 56_000_000)
    assert pace.is_slow(14.0, "a")
    pace.asks(0.0, "c", 0, 1_000_000)
    pace.saw(2.0, "c", 300_000)
    assert pace.is_slow(2.0, "c")
