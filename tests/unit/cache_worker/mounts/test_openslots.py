from __future__ import annotations

from cache_worker.mounts.openslots import Opened, OpenSlots

PART_BYTES = 8 * 4
RESENT = 1 << 63


def part() -> memoryview:
    return memoryview(bytearray(PART_BYTES))


def test_what_is_open_is_known_to_a_successor():
    memory = part()
    slots = OpenSlots(memory)
    first = slots.take(7, 100, passed=True)
    slots.take(9, 102, passed=False)
    assert sorted(OpenSlots(memory).left()) == [Opened(7, True), Opened(9, False)]
    assert slots.clear(first, 7)
    assert list(OpenSlots(memory).left()) == [Opened(9, False)]


def test_no_more_can_be_open_than_there_are_slots():
    slots = OpenSlots(part())
    handles = [slots.take(5, 2 * n, passed=True) for n in range(5)]
    assert handles[4] is None
    assert len(set(handles[:4])) == 4
    assert slots.clear(handles[2], 5)
    assert slots.take(6, 20, passed=True) is not None


def test_a_release_that_comes_twice_does_not_close_a_later_open_of_the_same_node():
    slots = OpenSlots(part())
    handle = slots.take(7, 100, passed=True)
    assert slots.clear(handle, 7)
    assert not slots.clear(handle, 7)
    later = slots.take(7, 102, passed=True)
    assert not slots.clear(handle, 7)
    assert slots.clear(later, 7)


def test_handles_that_were_never_given_are_refused():
    slots = OpenSlots(part())
    handle = slots.take(7, 100, passed=False)
    assert not slots.clear(handle, 8)
    assert not slots.clear(handle + 1, 7)
    assert not slots.clear((1 << 64) - 1, 7)
    assert not slots.clear(0, 0)
    assert slots.clear(handle, 7)


def test_an_open_that_a_predecessor_had_in_hand_gets_its_slot_once():
    memory = part()
    handle = OpenSlots(memory).take(7, 100, passed=True)
    slots = OpenSlots(memory)
    assert slots.inherited(7, 102, passed=True) is None
    assert slots.inherited(8, 100, passed=True) is None
    assert slots.inherited(7, 100, passed=True) == handle
    assert slots.inherited(7, 100 | RESENT, passed=True) == handle
    assert slots.is_inherited(handle)
    assert slots.clear(handle, 7)
    assert slots.inherited(7, 100, passed=True) is None


def test_an_open_that_was_sent_again_to_one_who_died_is_one_open():
    memory = part()
    before = OpenSlots(memory)
    handles = [before.take(7, unique, passed=True) for unique in (100, 100 | RESENT)]
    before.take(7, 102, passed=True)
    slots = OpenSlots(memory)
    assert list(slots.left()) == [Opened(7, True)] * 2
    assert slots.clear(handles[1], 7)
    assert not slots.clear(handles[0], 7)
    assert list(OpenSlots(memory).left()) == [Opened(7, True)]


def test_a_slot_that_was_given_back_is_not_inherited():
    memory = part()
    handle = OpenSlots(memory).take(7, 100, passed=True)
    slots = OpenSlots(memory)
    assert slots.clear(handle, 7)
    assert slots.inherited(7, 100, passed=True) is None
