"""What peers may say, and what may be answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache_worker.peers.messages import BATCH_BYTES, BATCH_CHUNKS, Answers, Get, Wanted
from cacheop.api import wire
from cacheop.api.errors import ProtocolError

if TYPE_CHECKING:
    import random

LENGTHS = st.integers(0, BATCH_BYTES // BATCH_CHUNKS)
COUNTS = st.integers(0, 1 << 40)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(
    st.lists(st.builds(Wanted, COUNTS, COUNTS, LENGTHS), min_size=1, max_size=BATCH_CHUNKS),
    st.text(max_size=64),
    st.booleans(),
    st.integers(0, 9),
)
def test_a_get_comes_over_the_wire_as_it_was(wanted, version, present, hops):
    get = Get(version, tuple(wanted), present, hops)
    head = wire.encode_head(wire.REQUEST, 1, get.to_meta(), 0)
    assert Get.from_meta(wire.decode_meta(head[wire.HEADER.size :])) == get


@given(st.dictionaries(st.sampled_from(["version", "chunks", "only_if_present", "hops"]), JSON))
def test_a_get_that_is_none_is_a_protocol_error(meta):
    try:
        get = Get.from_meta(meta)
    except ProtocolError:
        return
    assert 0 < len(get.wanted) <= BATCH_CHUNKS
    assert sum(w.length for w in get.wanted) <= BATCH_BYTES


@pytest.mark.parametrize(
    "chunks",
    [
        [],
        [[0, 0, 1]] * (BATCH_CHUNKS + 1),
        [[0, 0, BATCH_BYTES], [0, 1, 1]],
        [[0, 0]],
        [[0, 0, -1]],
        [[0, True, 1]],
        [["0", 0, 1]],
        {},
    ],
)
def test_a_get_beyond_its_limits_is_refused(chunks):
    with pytest.raises(ProtocolError):
        Get.from_meta({"version": "v", "chunks": chunks, "only_if_present": False, "hops": 1})


def test_answers_come_in_any_order_in_pieces():
    answers = Answers([10, 0, 5])
    assert answers.piece({"n": 2}, 5) == (2, 0)
    assert answers.end({"n": 2, "checksum": "00000000000000ff"}, 0) == (2, 255)
    assert answers.piece({"n": 0}, 4) == (0, 0)
    assert answers.piece({"n": 0}, 6) == (0, 4)
    assert answers.failed({"n": 0, "error": "StoreError"}, 0) == [0]
    assert answers.end({"n": 1, "checksum": "0" * 16}, 0) == (1, 0)
    assert not answers.open


@pytest.mark.parametrize(
    "said",
    [
        lambda a: a.piece({"n": 0}, 11),  # more than was asked for
        lambda a: a.piece({"n": 0}, 0),
        lambda a: a.piece({"n": 3}, 1),
        lambda a: a.piece({"n": -1}, 1),
        lambda a: a.piece({"n": True}, 1),
        lambda a: a.piece({}, 1),
        lambda a: (a.piece({"n": 0}, 1), a.piece({"n": 1}, 1)),  # one begins in another
        lambda a: (a.piece({"n": 0}, 1), a.end({"n": 0, "checksum": "0" * 16}, 0)),
        lambda a: a.end({"n": 0, "checksum": "0" * 16}, 0),
        lambda a: a.end({"n": 2, "checksum": "0" * 15}, 0),
        lambda a: a.end({"n": 2, "checksum": 0}, 0),
        lambda a: a.end({"n": 2, "checksum": "0" * 16}, 1),
        lambda a: (a.failed({"n": 0}, 0), a.failed({"n": 0}, 0)),
        lambda a: a.failed({}, 1),
    ],
)
def test_answers_out_of_order_are_refused(said):
    with pytest.raises(ProtocolError):
        said(Answers([10, 10, 0]))


def test_an_error_without_a_number_is_for_all_that_is_open():
    answers = Answers([0, 0, 0])
    answers.end({"n": 1, "checksum": "0" * 16}, 0)
    assert answers.failed({}, 0) == [0, 2]


@settings(deadline=None)
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_whatever_is_accepted_fills_each_chunk_once(lengths, rng: random.Random):
    answers = Answers(lengths)
    filled = [bytearray(length) for length in lengths]
    for _ in range(60):
        number, size = rng.randrange(len(lengths)), rng.randrange(1, 400)
        try:
            if rng.random() < 0.7:
                found, offset = answers.piece({"n": number}, size)
                assert offset + size <= lengths[found]
                assert not any(filled[found][offset : offset + size])
                filled[found][offset : offset + size] = b"x" * size
            else:
                found, _ = answers.end({"n": number, "checksum": "0" * 16}, 0)
                assert all(filled[found])
        except ProtocolError:
            continue
