import pytest

from cache_worker.eviction.streams import Stream


def test_the_first_read_again_after_long_ends_the_pass():
    stream = Stream(100)
    stream.seen = 90
    assert stream.again()
    assert (stream.seen, stream.length, stream.passes) == (0, 90, 1)
    assert not stream.counts


def test_many_reads_again_are_skewed_until_a_pass_shows():
    stream = Stream(10_000)
    stream.seen = 50
    for _ in range(11):
        assert not stream.again()
    assert stream.skewed
    assert stream.counts
    stream.seen = 1600
    assert stream.is_to_be_looked_at_again()
    stream.seen = 5000
    assert stream.again()
    assert not stream.skewed


def test_what_is_left_of_the_pass_is_expected_soon():
    stream = Stream(100)
    stream.seen = 98
    unread, read = stream.per_read()
    assert unread == pytest.approx(2 / 3)
    assert read == pytest.approx(1 / 52)


def test_a_stream_that_is_silent_for_long_wants_nothing():
    stream, clock = Stream(1000), 0
    for _ in range(100):
        clock += 10
        stream.heard(clock, 10)
    assert stream.rate(clock) > 0.5
    assert stream.rate(clock + 15) > 0.5
    assert stream.rate(clock + 1000) == 0.0
    stream.ended = True
    assert stream.rate(clock) == 0.0
