from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_worker.planning.order import JUDGED_CHUNKS, LATE, NEAR, Order
from cacheop.api.errors import ProtocolError
from cacheop.api.index import NO_ROW
from cacheop.api.plan import Reads


def rows(numbers):
    return Reads(array("I", numbers))


def one_chunk(row, first, count):
    del first, count
    return (row, range(1)) if row != NO_ROW else (0, range(0))


def told(*epochs):
    order = Order(one_chunk)
    for number, reads in enumerate(epochs):
        order.add(number, 0, rows(reads), begin=True)
    return order


def fetched(order, window=64):
    found = []
    while (due := order.next(window)) is not None:
        found.append(due.slot)
    return found


def test_what_comes_next_is_given_once_within_the_window():
    order = told(range(200))
    assert fetched(order) == list(range(64))
    assert order.reached(0, 10)
    assert fetched(order) == list(range(64, 74))
    assert order.lead == 64


def test_the_window_reaches_into_the_next_epoch():
    order = told(range(100), range(200, 300))
    order.reached(0, 90)
    assert fetched(order) == [*range(100), *range(200, 254)]
    assert order.reached(1, 0)
    assert order.epoch == 1
    assert fetched(order) == list(range(254, 264))


def test_what_was_read_is_not_fetched():
    order = told(range(100))
    order.reached(0, 1)
    order.heard([3, 4], own=True)
    assert fetched(order, 8) == [0, 1, 2, 5, 6, 7, 8]


def test_a_small_dataset_is_read_again_in_the_next_epoch():
    """Its reads of both epochs are awaited at the same time."""
    order = told(range(20), reversed(range(20)))
    order.reached(0, 20)
    order.heard(range(20), own=True)
    assert fetched(order) == list(reversed(range(20)))


def test_without_a_sampler_that_tells_the_furthest_read_counts():
    order = told(range(1000))
    order.heard([5, 3, 4], own=True)
    assert order.cursor == 6
    order.heard([500], own=False)  # another job's
    assert order.cursor == 6
    order.heard([NEAR + 7], own=True)  # too far to be ours
    assert order.cursor == 6


def test_what_another_rank_reads_now_is_still_wanted_later():
    order = told(range(1000))
    order.reached(0, 10)
    order.heard([5, 20, 900], own=True)
    assert fetched(order, 990) == [n for n in range(1000) if n not in (5, 20)]


def test_an_epoch_cut_short_is_forgotten():
    order = told(range(100), range(200, 300))
    order.reached(0, 5)
    for slot in fetched(order):
        order.got(slot, 10)
    assert order.unread_bytes == 690
    order.reached(1, 2)
    assert order.unread_bytes == 0
    assert order.reads == 100
    assert fetched(order) == list(range(200, 266))


def test_another_order_replaces_what_was_told():
    order = told(range(100), range(200, 300))
    order.reached(0, 99)
    fetched(order)
    order.add(1, 0, rows(range(300, 400)), begin=True)
    assert order.reads == 200
    order.reached(1, 1)
    assert fetched(order, 10) == list(range(300, 311))


def test_an_epoch_may_begin_in_its_middle_and_come_in_parts():
    order = Order(one_chunk)
    order.add(4, 50, rows(range(50, 60)), begin=True)
    order.add(4, 60, rows(range(60, 100)), begin=False)
    assert order.reached(4, 55)
    assert fetched(order, 8) == list(range(50, 63))
    with pytest.raises(ProtocolError):
        order.add(4, 101, rows([1]), begin=False)
    assert not order.reached(3, 0)


def test_a_jump_costs_no_walk():
    order = told(range(1_000_000))
    order.reached(0, 900_000)
    assert order.next(64).slot == 900_000 - LATE


def test_who_reads_something_else_is_found_out():
    order = told(range(30_000))
    for place in range(0, 30_000, 32):
        order.reached(0, place)
        for slot in fetched(order):
            order.got(slot, 1)
        order.heard([40_000 + place], own=True)
        if order.is_wrong():
            break
    assert place <= LATE + JUDGED_CHUNKS + 64


def test_who_reads_late_and_out_of_order_is_believed():
    order = told(range(30_000))
    for place in range(0, 30_000, 32):
        order.reached(0, place)
        for slot in fetched(order):
            order.got(slot, 1)
        late = max(0, place - 2000)
        order.heard(reversed(range(late, late + 32)), own=True)
        assert not order.is_wrong()
    assert order.unread_bytes < 2200


def test_all_chunks_of_a_big_file_are_due_at_once():
    order = Order(lambda row, first, count: (10 * row, range(3)[first : first + (count or 3)]))
    reads = rows([1, 2])
    reads.chunks = array("I", [0, 0, 1, 2])
    order.add(0, 0, reads, begin=True)
    assert fetched(order) == [10, 11, 12, 21, 22]


def test_what_the_dataset_lacks_keeps_its_place():
    order = told([5, NO_ROW, 6])
    assert fetched(order) == [5, 6]


@given(st.data())
def test_whatever_is_told_the_accounts_are_right(data):
    order, known = Order(one_chunk), 0
    numbers = st.lists(st.integers(0, 30), min_size=1, max_size=30)
    for _ in range(data.draw(st.integers(1, 25))):
        match data.draw(st.integers(0, 4)):
            case 0:
                known = max(known, order.epoch) + data.draw(st.integers(0, 1))
                order.add(known, 0, rows(data.draw(numbers)), begin=True)
            case 1:
                order.reached(data.draw(st.integers(0, 5)), data.draw(st.integers(0, 40)))
            case 2:
                order.heard(data.draw(numbers), own=data.draw(st.booleans()))
            case 3:
                for slot in fetched(order, data.draw(st.integers(1, 40))):
                    order.got(slot, 7)
            case _:
                before = order.cursor
                order.heard([], own=True)
                assert order.cursor == before
        assert order.unread_bytes == 7 * len(order._fetched)
        assert all(found == sorted(found) and found for found in order._awaited.values())
        assert 0 <= order.cursor <= order._end
