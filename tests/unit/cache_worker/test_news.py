"""What a node tells of what it got from the origin."""

from hypothesis import given
from hypothesis import strategies as st

from cache_worker.news import News


def test_who_asks_again_hears_only_what_is_new():
    news = News()
    for row in range(5):
        news.add("v1", row, 0)
    after, found = news.since("v1", 0, 3)
    assert found == [(0, 0), (1, 0), (2, 0)]
    after, found = news.since("v1", after, 100)
    assert found == [(3, 0), (4, 0)]
    assert news.since("v1", after, 100) == (after, [])
    news.add("v1", 9, 1)
    assert news.since("v1", after, 100)[1] == [(9, 1)]


def test_another_version_has_news_of_its_own():
    news = News()
    news.add("v1", 1, 0)
    after, _ = news.since("v1", 0, 10)
    news.add("v2", 2, 0)
    assert news.since("v1", after, 10)[1] == []
    assert news.since("v2", after, 10)[1] == [(2, 0)]
    assert news.since("v2", 0, 10)[1] == [(2, 0)]


def test_a_cursor_of_another_life_begins_with_what_is_known():
    news = News()
    news.add("v1", 7, 0)
    assert news.since("v1", 10_000, 10) == (1, [(7, 0)])


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 8), st.integers(1, 5))
def test_nothing_is_told_twice_and_only_what_was_forgotten_is_missed(steps, kept, most):
    news, told, after, added = News(kept), [], 0, 0
    for adds in [*steps, *[False] * kept]:  # in the end all that is known is asked for
        if adds:
            news.add("v1", added, 0)
            added += 1
        else:
            after, found = news.since("v1", after, most)
            told += [row for row, _ in found]
    assert told == sorted(set(told))
    assert set(range(max(0, added - kept), added)) <= set(told)
    if added <= kept:
        assert told == list(range(added))
