from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheop.operator.facts import Taint
from cacheop.operator.placement import Drain, Placement, Situation, place, weight
from tests.fakes.cluster_facts import NOW, UID, node, nodes, spec_of

ABC = nodes("a", "b", "c")


def seen(**fields) -> Situation:
    return Situation(**{"now": NOW, "nodes": ABC, "current": frozenset(), **fields})


def best(*names: str) -> str:
    return max(names, key=lambda name: weight(UID, name))


def test_one_node_keeps_a_worker_by_default():
    found = place(spec_of(), UID, seen())
    assert found.nodes == (best("a", "b", "c"),)
    assert not found.drain


def test_none_is_kept_for_replicas_0_until_somebody_uses_it():
    assert place(spec_of(replicas=0), UID, seen()).nodes == ()
    assert place(spec_of(replicas=0), UID, seen(in_use=frozenset("b"))).nodes == ("b",)


def test_a_load_wakes_one():
    assert len(place(spec_of(replicas=0), UID, seen(wake=True)).nodes) == 1


def test_every_node_that_uses_it_has_one():
    used = frozenset("ab")
    assert used <= set(place(spec_of(), UID, seen(in_use=used)).nodes)


def test_all_nodes():
    assert place(spec_of(allNodes=True), UID, seen()).nodes == ("a", "b", "c")


def test_who_holds_chunks_is_woken_first():
    for holder in "abc":
        found = place(spec_of(), UID, seen(holding=frozenset(holder)))
        assert found.nodes == (holder,)


def test_a_worker_that_serves_stays_where_it_is():
    for name in "abc":
        found = place(spec_of(), UID, seen(current=frozenset(name), serving=frozenset(name)))
        assert found.nodes == (name,)


def test_after_the_last_use_a_worker_stays_for_the_idle_time():
    spec = spec_of(replicas=0, worker={"idle": "10m"})
    at = seen(current=frozenset("b"), serving=frozenset("b"), last_use={"b": NOW - 599})
    found = place(spec, UID, at)
    assert found.nodes == ("b",)
    assert found.again_at == NOW + 1
    assert place(spec, UID, replace(at, last_use={"b": NOW - 600})).nodes == ()


def test_an_idle_worker_hands_over_before_it_goes():
    spec = spec_of(replicas=1, worker={"idle": "1s"})
    both = frozenset("ab")
    at = seen(current=both, serving=both, last_use={"a": NOW - 9, "b": NOW - 9})
    stays = best("a", "b")
    goes = "b" if stays == "a" else "a"
    first = place(spec, UID, at)
    assert first.nodes == ("a", "b")
    assert first.drain == {goes}
    assert first.keeping == {stays}
    meanwhile = place(spec, UID, replace(at, drains={goes: Drain(NOW - 5)}))
    assert meanwhile.nodes == ("a", "b")
    assert meanwhile.again_at == NOW - 5 + 300
    assert place(spec, UID, replace(at, drains={goes: Drain(NOW - 5, ended=True)})).nodes == (
        stays,
    )
    late = replace(at, drains={goes: Drain(NOW - 300)})
    assert place(spec, UID, late).nodes == (stays,), "a drain has a deadline"


def test_the_last_worker_goes_without_handing_over():
    spec = spec_of(replicas=0, worker={"idle": "1s"})
    at = seen(current=frozenset("a"), serving=frozenset("a"), last_use={"a": NOW - 9})
    assert place(spec, UID, at) == Placement((), frozenset(), frozenset())


def test_a_cordoned_node_is_left_when_another_can_take_over():
    there = {**ABC, "a": node("a", leaving="it is cordoned")}
    at = seen(nodes=there, current=frozenset("a"), serving=frozenset("a"))
    first = place(spec_of(), UID, at)
    other = best("b", "c")
    assert set(first.keeping) == {other}
    # The new one does not serve yet: nobody to hand over to, and the old one is not needed to.
    both = replace(at, current=frozenset({"a", other}), serving=frozenset({"a", other}))
    second = place(spec_of(), UID, both)
    assert second.drain == {"a"}
    assert set(second.nodes) == {"a", other}
    third = place(spec_of(), UID, replace(both, drains={"a": Drain(NOW, ended=True)}))
    assert third.nodes == (other,)


def test_a_pod_on_a_cordoned_node_keeps_its_worker_that_hands_over():
    there = {**ABC, "a": node("a", leaving="it is cordoned")}
    both = frozenset("ab")
    at = seen(nodes=there, current=both, serving=both, in_use=frozenset("a"))
    found = place(spec_of(), UID, replace(at, drains={"a": Drain(NOW - 999, ended=True)}))
    assert "a" in found.nodes
    assert found.drain == {"a"}


def test_when_all_nodes_leave_the_worker_stays():
    there = {name: node(name, leaving="it is cordoned") for name in "ab"}
    at = seen(nodes=there, current=frozenset("a"), serving=frozenset("a"))
    assert place(spec_of(), UID, at).nodes == ("a",)


def test_a_tainted_node_is_used_unless_tolerations_say_otherwise():
    there = {"a": node("a", taints=(Taint("gpu", "yes"),))}
    assert place(spec_of(), UID, seen(nodes=there)).nodes == ("a",)
    only = spec_of(tolerations=[{"key": "other", "operator": "Exists"}])
    assert place(only, UID, seen(nodes=there)).nodes == ()
    fits = spec_of(tolerations=[{"key": "gpu", "value": "yes"}])
    assert place(fits, UID, seen(nodes=there)).nodes == ("a",)


def test_a_node_that_is_gone_is_not_named():
    at = seen(current=frozenset({"a", "gone"}), serving=frozenset({"a", "gone"}))
    assert "gone" not in place(spec_of(replicas=3), UID, at).nodes


names = st.sampled_from("abcdefgh")
sets = st.frozensets(names)


@st.composite
def situations(draw) -> Situation:
    there = {n: node(n, leaving="x" if n in draw(sets) else "") for n in draw(sets)}
    current = draw(sets)
    return Situation(
        now=NOW,
        nodes=there,
        current=current,
        serving=draw(sets) & current,
        in_use=draw(sets),
        holding=draw(sets),
        last_use={n: NOW - draw(st.integers(0, 4000)) for n in draw(sets)},
        wake=draw(st.booleans()),
        drains={n: Drain(NOW - draw(st.integers(0, 600)), draw(st.booleans())) for n in draw(sets)},
    )


@given(situations(), st.integers(0, 9), st.booleans())
def test_what_holds_whatever_happens(at: Situation, replicas: int, all_nodes: bool):
    spec = spec_of(replicas=replicas, allNodes=all_nodes)
    found = place(spec, UID, at)
    there = frozenset(at.nodes)
    assert set(found.nodes) <= there
    assert found.keeping <= set(found.nodes)
    assert at.in_use & there <= found.keeping, "who uses it has a worker"
    assert found.drain <= at.serving, "only who serves can hand over"
    staying = {name for name in there if not at.nodes[name].leaving}
    assert len(found.keeping & staying) >= min(replicas, len(staying))
    if found.drain:
        assert found.keeping & at.serving, "there is somebody to take it"
    again = place(spec, UID, replace(at, current=frozenset(found.nodes)))
    assert again.keeping >= found.keeping - at.in_use - {*at.last_use}, "nothing moves by itself"
    assert found.again_at is None or found.again_at > at.now


@given(st.sets(names, min_size=2), st.integers(1, 4))
def test_a_node_more_moves_few(there: set[str], replicas: int):
    spec = spec_of(replicas=replicas)
    before = place(spec, UID, seen(nodes=nodes(*there))).keeping
    after = place(spec, UID, seen(nodes=nodes(*there, "new"))).keeping
    assert len(before - after) <= 1


@pytest.mark.parametrize("count", [1, 2, 5])
def test_stays_the_same_when_it_is_computed_again(count: int):
    spec = spec_of(replicas=count)
    there = nodes(*"abcdefgh")
    first = place(spec, UID, seen(nodes=there))
    kept = frozenset(first.nodes)
    assert place(spec, UID, seen(nodes=there, current=kept, serving=kept)).nodes == first.nodes
