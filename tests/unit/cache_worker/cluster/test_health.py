import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_worker.cluster.health import (
    BAN_SECONDS,
    DEFAULT_HEDGE_SECONDS,
    FIRST_REST_SECONDS,
    HEDGE_SECONDS,
    LONGEST_REST_SECONDS,
    TRIAL_SECONDS,
    Health,
    RetryBudget,
)
from cache_worker.cluster.latencies import ENOUGH_SAMPLES, WINDOW_SAMPLES, WINDOW_SECONDS
from cache_worker.cluster.view import Member

SOON = 0.001
EVENTS = ("ask", "answered", "refused", "silent", "sent_bad", "outrun")
steps = st.lists(st.tuples(st.floats(0, 20), st.sampled_from(EVENTS)), max_size=60)


def happen(health, now, event):
    match event:
        case "answered" | "outrun":
            return getattr(health, event)(now, "a", 0.1)
        case _:
            return getattr(health, event)(now, "a")


def with_latencies(**seconds):
    health = Health()
    for node, latency in seconds.items():
        for _ in range(ENOUGH_SAMPLES):
            health.answered(0, node, latency)
    return health


def test_a_peer_not_heard_of_is_asked():
    health = Health()
    assert health.circuit(0, "a") == "closed"
    assert health.ask(0, "a")
    assert health.p99_seconds(0, "a") is None
    assert health.hedge_after_seconds(0, "a") == DEFAULT_HEDGE_SECONDS


def test_after_a_refusal_one_trial_decides():
    health = Health()
    health.refused(10, "a")
    assert not health.ask(10, "a")
    now = 10 + FIRST_REST_SECONDS
    assert not health.ask(now - SOON, "a")
    assert health.circuit(now, "a") == "half-open"
    assert health.ask(now, "a")
    assert not health.ask(now, "a")  # the trial is out
    health.answered(now + 1, "a", None)
    assert health.circuit(now + 1, "a") == "closed"
    assert health.ask(now + 1, "a")
    assert health.ask(now + 1, "a")


def test_a_trial_that_tells_nothing_makes_room_for_another():
    health = Health()
    health.refused(0, "a")
    assert health.ask(1, "a")
    assert not health.ask(1 + TRIAL_SECONDS - SOON, "a")
    assert health.ask(1 + TRIAL_SECONDS, "a")


def test_what_fails_together_is_one_failure():
    health = Health()
    for _ in range(16):
        health.refused(0, "a")
    assert health.ask(FIRST_REST_SECONDS, "a")


def test_rests_double_up_to_the_longest_and_an_answer_ends_them():
    health, now, rests = Health(), 0.0, []
    for _ in range(8):
        health.refused(now, "a")
        began = now
        while not health.ask(now, "a"):
            now += 0.125
        rests.append(now - began)
    assert rests == [0.5, 1, 2, 4, 8, 8, 8, 8]
    health.answered(now, "a", 0.1)
    health.refused(now, "a")
    assert health.ask(now + FIRST_REST_SECONDS, "a")


def test_bad_bytes_ban_whatever_else_it_says():
    health = Health()
    assert health.sent_bad(0, "a")
    assert not health.sent_bad(0, "a")  # one ban, counted once
    health.answered(1, "a", 0.1)
    health.refused(2, "a")
    assert health.banned(BAN_SECONDS - SOON, "a")
    assert not health.ask(BAN_SECONDS - SOON, "a")
    assert not health.banned(BAN_SECONDS, "a")
    assert health.ask(BAN_SECONDS, "a")
    assert not health.ask(BAN_SECONDS, "a")
    assert health.sent_bad(BAN_SECONDS + 1, "a")
    assert not health.ask(2 * BAN_SECONDS, "a")
    assert health.ask(2 * BAN_SECONDS + 1, "a")


def test_silence_twice_in_a_row_is_a_ban():
    health = Health()
    assert not health.silent(0, "a")
    assert not health.silent(0, "a")  # asked before
    assert not health.banned(0, "a")
    assert health.ask(1, "a")
    assert health.silent(1, "a")
    assert health.banned(BAN_SECONDS, "a")


@pytest.mark.parametrize("event", ["answered", "refused"])
def test_silence_and_then_a_sign_of_life_is_none(event):
    health = Health()
    health.silent(0, "a")
    health.ask(1, "a")
    happen(health, 1, event)
    assert health.ask(3, "a")
    assert not health.silent(3, "a")


def test_members_that_go_or_start_again_begin_anew_but_bans_stay():
    health = Health()
    health.refused(0, "a")
    health.keep(0, [Member("a", instance="1")])  # known by a failure before any view
    assert not health.ask(0, "a")
    health.keep(0, [Member("a", instance="1")])
    assert not health.ask(0, "a")
    health.keep(0, [Member("a", instance="2")])
    assert health.ask(0, "a")
    health.sent_bad(0, "a")
    health.keep(0, [Member("a", instance="3")])
    health.keep(0, [])
    assert not health.ask(0, "a")
    health.keep(BAN_SECONDS, [])
    assert health.circuit(BAN_SECONDS, "a") == "closed"


@given(steps)
def test_whatever_happens(steps):
    """Banned means not asked; a trial is one request; and everybody gets another chance."""
    health, now, banned_at = Health(), 0.0, -BAN_SECONDS
    for wait, event in steps:
        now += wait
        before = health.circuit(now, "a")
        result = happen(health, now, event)
        if event in {"sent_bad", "silent"} and result:
            banned_at = now
        if event == "ask":
            assert result == (before != "open")
            assert not (result and now < banned_at + BAN_SECONDS)
            if before == "half-open":
                assert not health.ask(now, "a")
        elif event == "answered" and now >= banned_at + BAN_SECONDS:
            assert health.circuit(now, "a") == "closed"
        shortest, longest = HEDGE_SECONDS
        assert shortest <= health.hedge_after_seconds(now, "a") <= longest
    assert health.ask(now + max(BAN_SECONDS, LONGEST_REST_SECONDS, TRIAL_SECONDS), "a")


@given(st.lists(st.floats(0, 100), min_size=ENOUGH_SAMPLES, max_size=2 * WINDOW_SAMPLES))
def test_quantiles_are_of_the_last_latencies(latencies):
    health = Health()
    for seconds in latencies:
        health.answered(0, "a", seconds)
    window = latencies[-WINDOW_SAMPLES:]
    p50, p99 = health.p50_seconds(0, "a"), health.p99_seconds(0, "a")
    assert sum(seconds <= p50 for seconds in window) >= len(window) / 2
    assert sum(seconds < p50 for seconds in window) < len(window) / 2
    assert sum(seconds <= p99 for seconds in window) >= len(window) * 0.99
    assert p50 <= p99 <= max(window)


def test_old_latencies_are_forgotten():
    health = with_latencies(a=1.0)
    assert health.p99_seconds(WINDOW_SECONDS, "a") == 1.0
    assert health.p99_seconds(WINDOW_SECONDS + SOON, "a") is None
    for _ in range(ENOUGH_SAMPLES):
        health.answered(WINDOW_SECONDS + SOON, "a", 0.5)
    assert health.p99_seconds(WINDOW_SECONDS + SOON, "a") == 0.5


@pytest.mark.parametrize(
    ("latency", "hedge"), [(0.001, HEDGE_SECONDS[0]), (0.1, 0.3), (5.0, HEDGE_SECONDS[1])]
)
def test_copies_are_asked_for_after_three_times_its_p99(latency, hedge):
    assert with_latencies(a=latency).hedge_after_seconds(0, "a") == pytest.approx(hedge)


def test_being_outrun_makes_a_peer_slower():
    health = with_latencies(a=0.1)
    health.outrun(0, "a", 0.5)
    assert health.p99_seconds(0, "a") == 0.5


@pytest.mark.parametrize(
    ("slow", "others", "waited", "may"),
    [
        (0.1, [0.1, 0.1], 0.9, False),  # not ten times as slow
        (0.1, [0.1, 0.1], 1.1, True),  # this one wait is
        (2.5, [0.1, 0.2, 9.0], 2.1, True),  # it always is
        (2.5, [0.1, 0.2, 9.0], 1.9, False),  # but copies are asked for first
        (0.01, [0.001], 0.04, False),
        (1.9, [0.1, 0.2, 9.0], 1.9, False),  # 9.5 x
        (2.5, [], 60, False),  # nothing to compare with
    ],
)
def test_the_origin_only_when_it_is_ten_times_as_slow_as_the_others(slow, others, waited, may):
    health = with_latencies(slow=slow, **{f"other{i}": s for i, s in enumerate(others)})
    assert health.may_hedge_to_origin(0, "slow", waited) is may


@given(st.lists(st.tuples(st.floats(0, 2), st.booleans()), max_size=400))
def test_retries_keep_to_their_share(steps):
    budget, now, requests, retries = RetryBudget(), 0.0, 0, 0
    for wait, retry in steps:
        now += wait
        if retry:
            retries += budget.spend(now)
        else:
            budget.request()
            requests += 1
    most = budget.most + budget.share * requests + budget.per_second * now
    assert retries <= most + 1e-6


def test_some_retries_are_always_possible():
    budget = RetryBudget()
    while budget.spend(0):
        pass
    assert not budget.spend(0.4)
    assert budget.spend(0.5)
    for _ in range(5):
        budget.request()
    assert budget.spend(0.5)
    assert not budget.spend(0.5)


def test_a_refusal_after_a_ban_is_a_rest_that_an_answer_ends():
    health = Health()
    health.sent_bad(0, "a")
    health.refused(BAN_SECONDS, "a")
    health.answered(BAN_SECONDS, "a", None)
    assert health.circuit(BAN_SECONDS, "a") == "closed"
