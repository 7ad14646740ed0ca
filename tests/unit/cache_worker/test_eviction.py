import pytest

from cache_worker.eviction import POLICIES, Candidate


def candidates(*accessed):
    return [Candidate(i, 10, at, 1) for i, at in enumerate(accessed)]


def test_lru_takes_the_longest_unused_first_and_no_more_than_needed():
    chosen = POLICIES["LRU"]().victims(candidates(30, 10, 20), 15)
    assert [c.accessed_seconds for c in chosen] == [10, 20]


def test_noevict_takes_none():
    assert POLICIES["NoEvict"]().victims(candidates(1, 2), 1) == []


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_returns_some_of_the_candidates_once(name):
    given = candidates(*range(50))
    chosen = POLICIES[name]().victims(given, 10_000)
    assert len(set(chosen)) == len(chosen)
    assert set(chosen) <= set(given)


@pytest.mark.parametrize("name", POLICIES)
def test_nothing_to_choose_from(name):
    assert POLICIES[name]().victims([], 1) == []
