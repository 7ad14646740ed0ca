from __future__ import annotations

import random

import pytest

from cache_worker.mounts.readahead import (
    AHEAD_CHUNKS_MAX,
    FILE_STREAMS_MAX,
    FILES_MAX,
    Stream,
    Streams,
    advance,
)
from cacheop.api.chunk import CHUNK_BYTES, chunk_count

MIB = 1 << 20
SIZE = 10 * CHUNK_BYTES + 5


def run(offsets, length=MIB, size=SIZE):
    stream, asked = Stream(), []
    for offset in offsets:
        stream, chunks = advance(stream, size, offset, length)
        asked += chunks
    return asked


def test_a_stream_asks_for_every_later_chunk_once_and_in_order():
    assert run(range(0, SIZE, MIB)) == list(range(1, chunk_count(SIZE)))


def test_order_among_neighbours_does_not_matter():
    offsets = list(range(0, SIZE, MIB))
    dice = random.Random(1)
    shuffled = []
    for at in range(0, len(offsets), 3):
        group = offsets[at : at + 3]
        dice.shuffle(group)
        shuffled += group
    assert run(shuffled) == list(range(1, chunk_count(SIZE)))


def test_a_look_at_the_header_and_jumps_ask_for_nothing():
    assert run([0]) == []
    assert run([0, 50 * MIB, 20 * MIB, 70 * MIB, 0], length=4096) == []


def test_no_more_ahead_than_was_read_and_never_more_than_the_bound():
    size = 40 * CHUNK_BYTES
    stream, deepest = Stream(), 0
    for offset in range(0, size, MIB):
        stream, chunks = advance(stream, size, offset, MIB)
        here = (offset + MIB - 1) // CHUNK_BYTES
        for chunk in chunks:
            assert here < chunk <= here + max(1, (offset + MIB) // CHUNK_BYTES)
            deepest = max(deepest, chunk - here)
    assert deepest == AHEAD_CHUNKS_MAX


@pytest.mark.parametrize("step", [MIB, 2 * MIB, 5 * MIB, CHUNK_BYTES])
def test_a_reader_that_goes_backwards_asks_for_nothing(step):
    assert run(range(SIZE - MIB, 0, -step)) == []


def test_a_read_again_asks_for_nothing_more():
    stream, _ = advance(Stream(), SIZE, 0, 4 * MIB)
    assert advance(stream, SIZE, 3 * MIB, MIB) == (stream, range(0))


def test_readers_of_one_file_at_different_places_each_have_their_stream():
    size, streams = 100 * CHUNK_BYTES, Streams()
    starts = [k * 25 * CHUNK_BYTES for k in range(FILE_STREAMS_MAX)]
    asked = [[chunk for start in starts for chunk in streams.read(7, size, start + at, MIB)]
             for at in range(0, 6 * CHUNK_BYTES, MIB)]  # fmt: skip
    found = sorted(chunk for chunks in asked for chunk in chunks)
    for start in starts:
        first = start // CHUNK_BYTES
        assert set(range(first + 1, first + 9)) <= set(found)
    assert len(found) == len(set(found))


def test_streams_are_bounded():
    streams = Streams()
    for row in range(FILES_MAX + 10):
        for place in range(FILE_STREAMS_MAX + 2):
            streams.read(row, SIZE, place * 2 * CHUNK_BYTES, MIB)
    assert len(streams._files) == FILES_MAX
    assert all(len(found) == FILE_STREAMS_MAX for found in streams._files.values())


def test_small_files_have_no_streams():
    streams = Streams()
    assert streams.read(1, CHUNK_BYTES, 0, MIB) == range(0)
    assert not streams._files


def test_the_last_chunk_is_the_end():
    assert run(range(0, 2 * CHUNK_BYTES, MIB), size=2 * CHUNK_BYTES) == [1]
