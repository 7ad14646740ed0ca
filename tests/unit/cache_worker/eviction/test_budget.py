from hypothesis import given
from hypothesis import strategies as st

from cache_worker.eviction.budget import Tenant, give_up, is_expired

TENANTS = st.lists(
    st.builds(
        Tenant,
        name=st.uuids().map(str),
        used_bytes=st.integers(0, 1000),
        floor_bytes=st.integers(0, 1000),
        priority=st.integers(-2, 2),
    ),
    max_size=6,
)


def test_the_lowest_priority_gives_first_and_keeps_its_floor():
    a, b = Tenant("a", 100, 40, priority=-1), Tenant("b", 100)
    assert give_up([a, b], 50) == {"a": 50}
    assert give_up([a, b], 80) == {"a": 60, "b": 20}


def test_equals_give_in_proportion_to_what_they_can_spare():
    assert give_up([Tenant("a", 300), Tenant("b", 200, 100)], 100) == {"a": 75, "b": 25}


def test_who_asks_takes_nothing_from_its_betters():
    a, b = Tenant("a", 100), Tenant("b", 100, priority=5)
    assert give_up([a, b], 150, asking="a") == {"a": 100}
    assert give_up([a, b], 150, asking="b") == {"a": 100, "b": 50}


@given(TENANTS, st.integers(0, 5000))
def test_floors_hold_and_as_much_is_given_as_there_is(tenants, need):
    given_up = give_up(tenants, need)
    spare = {t.name: t.spare_bytes for t in tenants}
    assert all(given_up[name] <= spare[name] for name in given_up)
    assert sum(given_up.values()) >= min(need, sum(spare.values()))
    assert sum(given_up.values()) < need + len(tenants) or not need


def test_unset_means_never():
    assert not is_expired(0, 1e9, None)
    assert is_expired(0, 61, 60)
    assert not is_expired(0, 60, 60)
