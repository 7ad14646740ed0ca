"""Whom a node asks: always one that can be asked, never in a circle."""

from hypothesis import given
from hypothesis import strategies as st

from cache_worker.cluster.route import HOPS_MAX, Asked, route
from cache_worker.cluster.view import Member

NODES = "abcdef"
A, B, C, D = (Member(node) for node in NODES[:4])


def test_the_owner_is_asked_and_the_next_two_may_have_copies():
    found = route([A, B, C, D], "d", None, out=(), slow=())
    assert (found.ask, found.copies) == (A, (B, C))


def test_the_owner_itself_reads_the_origin():
    found = route([A, B, C, D], "a", None, out=(), slow=())
    assert (found.ask, found.copies, found.hedged) == (None, (B, C), False)


def test_one_that_drains_owns_nothing_but_may_have_it():
    leaving = Member("a", draining=True)
    found = route([leaving, B, C], "c", None, out=(), slow=())
    assert (found.ask, found.copies) == (B, (leaving,))


def test_the_next_acts_for_an_owner_that_is_out():
    assert route([A, B, C], "c", None, out={"a"}, slow=()).ask == B
    assert route([A, B, C], "b", None, out={"a"}, slow=()).ask is None


def test_acting_for_another_is_told_and_who_failed_the_asker_is_no_holder():
    assert route([A, B, C], "b", None, out={"a"}, slow=()).instead
    found = route([A, B, C], "b", Asked("d", without=frozenset("a")), out=(), slow=())
    assert (found.instead, found.copies) == (True, (C,))
    assert not route([A, B, C], "a", None, out=(), slow=()).instead


def test_acting_for_a_slow_owner_is_told():
    assert route([A, B], "b", None, out=(), slow={"a"}).hedged
    assert route([A, B], "b", Asked("c", without=frozenset("a")), out=(), slow=()).hedged
    assert not route([A, B], "b", None, out={"a"}, slow=()).hedged


def test_the_asker_is_not_asked_back():
    found = route([A, B, C], "b", Asked("a"), out=(), slow=())
    assert (found.ask, found.copies) == (None, (C,))


def test_alone_it_reads_the_origin():
    assert route([A], "a", None, out=(), slow=()).ask is None
    assert route([], "a", None, out=(), slow=()).ask is None


nodes = st.sampled_from(NODES)


@given(
    st.dictionaries(nodes, st.permutations(NODES), min_size=1),
    st.frozensets(nodes),
    nodes,
)
def test_requests_end_whatever_everybody_sees(orders, draining, start):
    """Each node has a view of its own; following the routes never comes back to who asked."""
    asked, here, path = None, start, [start]
    for _ in range(HOPS_MAX + 1):
        order = [Member(n, draining=n in draining) for n in orders.get(here, NODES)]
        found = route(order, here, asked, out=(), slow=())
        assert here not in {m.node for m in found.copies}
        if found.ask is None:
            break
        assert found.ask.node != here
        assert asked is None or found.ask.node != asked.node
        asked, here = Asked(here, hops=asked.hops + 1 if asked else 1), found.ask.node
        path.append(here)
    else:
        raise AssertionError(f"asked on and on: {path}")
