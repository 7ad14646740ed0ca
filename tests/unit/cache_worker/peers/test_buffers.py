"""Memory that is used again, but never while somebody holds it."""

from __future__ import annotations

import random

from cache_worker.peers.buffers import Buffers

SIZE = 100_000


def test_a_buffer_is_used_again_when_the_last_slice_of_it_is_gone():
    buffers = Buffers(1 << 20)
    first = buffers.take(SIZE)
    first[:] = b"1" * SIZE
    part = first[5:10]
    del first
    second = buffers.take(SIZE)
    second[:] = b"2" * SIZE
    assert bytes(part) == b"11111"
    holder = part.obj
    del part
    third = buffers.take(SIZE)
    assert third.obj is holder
    assert len(third) == SIZE
    assert not third.readonly


def test_no_more_is_kept_than_allowed():
    buffers = Buffers(300_000)
    held = [buffers.take(SIZE) for _ in range(10)]
    assert len({id(view.obj) for view in held}) == 10
    assert buffers._kept_bytes <= 300_000
    del held
    buffers.trim(0)
    assert buffers._kept_bytes == 0


def test_what_is_held_never_changes():
    rng = random.Random(1)
    buffers = Buffers(2 << 20)
    held: list[tuple[memoryview, int]] = []
    for step in range(2000):
        if held and rng.random() < 0.5:
            held.pop(rng.randrange(len(held)))
        else:
            view = buffers.take(rng.choice([1, 70_000, SIZE, 300_000]))
            view[:8] = (step.to_bytes(8, "little"))[: len(view)]
            held.append((view, step))
        for view, number in held:
            assert bytes(view[:8]) == number.to_bytes(8, "little")[: len(view)]
