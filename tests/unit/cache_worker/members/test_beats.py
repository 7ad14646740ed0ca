"""Who is live, from beats: rounds as plain data."""

import math

from hypothesis import given
from hypothesis import strategies as st

from cache_worker.cluster.view import Member
from cache_worker.members.beats import (
    FORGOTTEN_MS,
    GONE_SECONDS,
    RETRY_MAX_SECONDS,
    Heard,
    forgotten,
    listen,
)

REDIS_MS = 1_700_000_000_000


def entries(**beats):
    return {node: (Member(node, "127.0.0.1:1"), beat) for node, beat in beats.items()}


def nodes(heard):
    return sorted(member.node for member in heard.live())


class Rounds:
    """One round after the other, of one who listens."""

    def __init__(self, now=50.0):
        self.heard, self.now, self.redis_ms = Heard(), now, REDIS_MS

    def round(self, seconds=1.0, *, reconnected=False, **beats):
        self.now += seconds
        self.redis_ms += round(seconds * 1000)
        self.heard = listen(
            self.heard,
            entries(**beats),
            redis_ms=self.redis_ms,
            now=self.now,
            reconnected=reconnected,
        )
        return nodes(self.heard)


def test_a_joiner_sees_who_beats_and_not_who_is_dead():
    fresh, dead = REDIS_MS - 500, REDIS_MS - 60_000
    assert Rounds().round(reconnected=True, a=fresh, b=dead) == ["a"]


def test_who_stops_is_gone_after_four_seconds_and_not_before():
    rounds = Rounds()
    rounds.round(a=REDIS_MS)
    last = rounds.redis_ms
    rounds.round(a=last)
    left = [rounds.round(a=last) for _ in range(5)]
    assert left == [["a"], ["a"], ["a"], [], []]


def test_who_comes_back_is_there_with_its_next_beat():
    rounds = Rounds()
    rounds.round(a=REDIS_MS - 60_000)
    assert rounds.round(a=REDIS_MS - 59_000) == ["a"]


@given(st.lists(st.integers(0, 2**62), min_size=2, max_size=8, unique=True))
def test_only_the_change_of_a_beat_counts_not_what_it_says(beats):
    """Redis's own clock may be set forth and back, and so may that of its successor."""
    rounds = Rounds()
    rounds.round(a=REDIS_MS)
    assert all(rounds.round(a=beat) == ["a"] for beat in beats if beat != REDIS_MS)


@given(st.integers(-(2**40), 2**40), st.floats(-1e9, 1e9))
def test_no_clock_of_ours_matters(skew_ms, monotonic):
    plain, skewed = Rounds(), Rounds(now=monotonic)
    skewed.redis_ms += skew_ms
    for k in range(12):
        beat = REDIS_MS + 1000 * min(k, 5)
        assert plain.round(a=beat) == skewed.round(a=beat + skew_ms)


@given(st.floats(0, 3600), st.floats(0, RETRY_MAX_SECONDS + 1))
def test_a_redis_that_was_away_and_comes_back_empty_changes_nothing(away, return_seconds):
    rounds = Rounds()
    rounds.round(a=REDIS_MS, b=REDIS_MS)
    assert rounds.round(away, reconnected=True) == ["a", "b"]
    waited = 0.0
    while waited < return_seconds:
        assert rounds.round() == ["a", "b"]
        waited += 1
    assert rounds.round(a=1, b=2) == ["a", "b"]


def test_a_flush_on_a_living_connection_changes_nothing():
    rounds = Rounds()
    rounds.round(a=REDIS_MS)
    rounds.round(a=REDIS_MS + 1000)
    assert rounds.round() == ["a"]
    assert rounds.round(a=REDIS_MS + 3000) == ["a"]


def test_who_died_while_redis_was_away_is_gone_soon_after():
    rounds = Rounds()
    rounds.round(a=REDIS_MS)
    rounds.round(600, reconnected=True)
    left = [bool(rounds.round()) for _ in range(8)]
    assert left.index(False) + 1 == GONE_SECONDS + RETRY_MAX_SECONDS


def test_who_was_gone_before_an_outage_is_not_revived_by_it():
    rounds = Rounds()
    rounds.round(a=REDIS_MS - 60_000)
    assert rounds.round(600, reconnected=True, a=REDIS_MS - 60_000) == []


def test_who_was_stopped_himself_does_not_take_all_others_for_dead():
    rounds = Rounds()
    rounds.round(a=REDIS_MS)
    assert rounds.round(30, a=REDIS_MS) == ["a"]


def test_only_the_long_dead_are_forgotten():
    beats = entries(
        live=REDIS_MS, dead=REDIS_MS - 60_000, old=REDIS_MS - FORGOTTEN_MS - 1, ahead=2**62
    )
    heard = listen(Heard(), beats, redis_ms=REDIS_MS, now=9.0, reconnected=True)
    assert forgotten(beats, heard, REDIS_MS) == ["old"]
    for now in (11.0, 13.0):
        heard = listen(heard, beats, redis_ms=REDIS_MS, now=now, reconnected=False)
    assert sorted(forgotten(beats, heard, REDIS_MS)) == ["ahead", "old"]


def test_a_clock_that_jumps_forgets_nobody_who_lives():
    heard = listen(Heard(), entries(a=REDIS_MS), redis_ms=REDIS_MS, now=1.0, reconnected=True)
    found = entries(a=REDIS_MS + 1)
    heard = listen(heard, found, redis_ms=REDIS_MS * 2, now=2.0, reconnected=False)
    assert forgotten(found, heard, REDIS_MS * 2) == []


def test_nothing_was_heard_at_first():
    assert Heard().live() == []
    assert Heard().at == -math.inf
