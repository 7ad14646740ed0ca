from __future__ import annotations

import random

from cache_worker.mounts.readahead import Stream, advance
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


def test_at_most_two_chunks_ahead():
    stream = Stream()
    for offset in range(0, SIZE, MIB):
        stream, chunks = advance(stream, SIZE, offset, MIB)
        here = (min(offset + MIB, SIZE) - 1) // CHUNK_BYTES
        assert all(here < chunk <= here + 2 for chunk in chunks)


def test_the_last_chunk_is_the_end():
    assert run(range(0, 2 * CHUNK_BYTES, MIB), size=2 * CHUNK_BYTES) == [1]
