"""What goes to a peer in one request."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from cache_worker.peers.messages import BATCH_BYTES, BATCH_CHUNKS
from cache_worker.peers.waiting import SMALL_BYTES, Line


@dataclass(eq=False)
class Item:
    number: int
    length: int
    gone: bool = False


def line_of(*lengths: int, batched: bool = True) -> tuple[Line[Item], list[Item]]:
    line: Line[Item] = Line(batched)
    items = [Item(n, length) for n, length in enumerate(lengths)]
    for item in items:
        line.add(item)
    return line, items


def numbers(items: list[Item]) -> list[int]:
    return [item.number for item in items]


def test_small_ones_go_together_and_large_ones_alone():
    line, _ = line_of(10, 8 << 20, 20, SMALL_BYTES, SMALL_BYTES + 1)
    assert numbers(line.take(1 << 30)) == [0, 2, 3]
    assert numbers(line.take(1 << 30)) == [1]
    assert numbers(line.take(1 << 30)) == [4]
    assert line.take(1 << 30) == []
    assert not line


def test_who_waits_longest_goes_first():
    line, _ = line_of(8 << 20, 1, 1)
    assert numbers(line.take(1 << 30)) == [0]
    assert numbers(line.take(1 << 30)) == [1, 2]


def test_nothing_overtakes_a_large_one_that_lacks_room():
    line, _ = line_of(8 << 20, 1)
    assert line.take(1 << 20) == []
    assert line


def test_who_is_gone_is_not_asked_for():
    line, items = line_of(1, 8 << 20, 1)
    items[0].gone = items[1].gone = True
    assert numbers(line.take(1 << 30)) == [2]
    line, items = line_of(1)
    items[0].gone = True
    assert not line


def test_questions_go_one_by_one():
    line, _ = line_of(0, 0, batched=False)
    assert numbers(line.take(1)) == [0]
    assert numbers(line.take(1)) == [1]


@given(st.lists(st.integers(0, 2 * SMALL_BYTES), max_size=300), st.integers(0, 32 << 20))
def test_a_request_keeps_to_its_limits_and_nobody_is_lost_or_asked_for_twice(lengths, room):
    line, _ = line_of(*lengths)
    seen: list[int] = []
    while taken := line.take(room):
        assert len(taken) <= BATCH_CHUNKS
        assert sum(item.length for item in taken) <= min(room, BATCH_BYTES)
        assert len(taken) == 1 or all(item.length <= SMALL_BYTES for item in taken)
        assert numbers(taken) == sorted(numbers(taken))
        seen += numbers(taken)
    assert len(seen) == len(set(seen))
    if room >= BATCH_BYTES:
        assert sorted(seen) == list(range(len(lengths)))
