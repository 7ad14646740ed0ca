"""A member as JSON and back; what is refused."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_worker.cluster.view import Member
from cache_worker.members.facts import from_entry, from_meta, is_address, to_entry, to_meta

texts = st.text(max_size=40).filter(str.isprintable)
counts = st.integers(0, 2**63 - 1)
members = st.builds(
    Member,
    node=texts.filter(bool),
    address=st.just("127.0.0.1:7070"),
    zone=texts,
    capacity_bytes=counts,
    draining=st.booleans(),
    instance=texts,
    version=texts,
    generation=counts,
    joined=counts,
)
ME = Member("n0", "127.0.0.1:7070", capacity_bytes=5)


@given(members, counts)
def test_a_member_comes_back_as_it_was(member, beat_ms):
    assert from_entry(member.node, to_entry(member, beat_ms)) == (member, beat_ms)
    assert from_meta(json.loads(json.dumps(to_meta(member)))) == member


def test_what_a_newer_member_says_beside_is_passed_over():
    assert from_meta({**to_meta(ME), "colour": {"deep": [1, 2]}}) == ME


def test_what_an_older_member_does_not_say_is_as_by_default():
    assert from_meta({"node": "n0"}) == Member("n0")


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_garbage_is_a_value_error_and_nothing_else(value):
    with pytest.raises(ValueError):
        from_entry("n0", value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@given(st.sampled_from(sorted(to_meta(ME))), json_values)
def test_a_field_has_its_type_or_the_member_is_refused(name, value):
    try:
        found = from_meta({**to_meta(ME), name: value})
    except ValueError:
        return
    assert type(getattr(found, name)) is type(getattr(ME, name))


@pytest.mark.parametrize(
    "change",
    [
        {"node": "other"},
        {"address": ""},
        {"address": "127.0.0.1"},
        {"address": "127.0.0.1:0"},
        {"address": "127.0.0.1:99999"},
        {"address": "a b:80"},
        {"capacity_bytes": -1},
        {"capacity_bytes": True},
        {"capacity_bytes": 2**63},
        {"capacity_bytes": 1.0},
        {"draining": 1},
        {"zone": "a\nb"},
        {"zone": "x" * 301},
        {"beat_ms": None},
        {"beat_ms": "7"},
        {"beat_ms": -1},
        {"extra": "x" * 9000},
    ],
)
def test_an_insane_entry_is_refused(change):
    entry = {**json.loads(to_entry(ME, 7)), **change}
    with pytest.raises(ValueError):
        from_entry("n0", json.dumps(entry).encode())


def test_an_entry_may_be_nested_as_deeply_as_it_likes():
    with pytest.raises(ValueError):
        from_entry("n0", b"[" * 8000)


def test_addresses():
    assert is_address("10.0.0.7:7070")
    assert is_address("[fe80::1]:7070")
    assert is_address("node-1.some_domain:1")
    assert not is_address("::1:7070")
    assert not is_address("٣:٣")
    assert from_entry("n0", to_entry(replace(ME, address="[::1]:80"), 1))[0].address == "[::1]:80"
