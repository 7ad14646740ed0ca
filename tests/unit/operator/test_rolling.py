from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cacheop.operator.rolling import to_replace
from tests.fakes.cluster_facts import worker

ALL = frozenset("abcd")


def replaced(pods, *, template="new", stale=(), wanted=ALL, plugins=ALL, at_once=1):
    found = to_replace(pods, template, frozenset(stale), wanted, plugins, at_once)
    return [pod.node for pod in found]


def test_one_at_a_time():
    pods = [worker(n) for n in "abcd"]
    assert replaced(pods) == ["a"]
    assert replaced(pods, at_once=3) == ["a", "b", "c"]
    assert replaced([worker("a", template="new", ready=False), *pods[1:]]) == []
    assert replaced(pods[1:]) == [], "the one that is being made counts"


def test_nothing_is_done_when_all_is_new():
    assert replaced([worker(n, template="new") for n in "abcd"]) == []


def test_a_broken_one_goes_at_once():
    pods = [worker("a", ready=False), worker("b", ready=False), worker("c"), worker("d")]
    assert replaced(pods) == ["a", "b"]


def test_a_new_pod_without_room_holds_up_the_others():
    waiting = worker("a", template="new", ready=False, running=False, problem="no room")
    assert replaced([waiting, *(worker(n) for n in "bcd")]) == []


def test_only_where_the_plugin_keeps_the_mounts():
    assert replaced([worker(n) for n in "abcd"], plugins=frozenset("d")) == ["d"]


def test_one_that_refuses_its_spec_starts_again():
    pods = [worker(n, template="new") for n in "abcd"]
    assert replaced(pods, stale={"uid-c"}) == ["c"]


def test_who_leaves_is_left_alone():
    assert replaced([worker("z"), worker("a", deleting=True)], wanted=frozenset("a")) == []


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abcd"), st.booleans(), st.sampled_from(["new", "old"]), st.booleans()
        ),
        unique_by=lambda pod: pod[0],
    ),
    st.integers(1, 5),
)
def test_never_more_than_allowed(kinds, at_once):
    pods = [worker(n, ready=r, template=t, deleting=d) for n, r, t, d in kinds]
    found = to_replace(pods, "new", frozenset(), ALL, ALL, at_once)
    away = {n for n in ALL if not any(p.node == n and p.ready and not p.deleting for p in pods)}
    taken = [pod for pod in found if pod.ready]
    assert not taken or len(away) + len(taken) <= at_once
    assert all(pod.template == "old" for pod in found)
