"""PassthroughOpens against a kernel that enforces its rules, one case at a time."""

from __future__ import annotations

import errno

import pytest

from cache_worker.mounts import kernel
from cache_worker.mounts.backing import NO_HOLDER
from cache_worker.mounts.channel import LANDING, Request
from tests.fakes.passthrough_kernel import FILES, MOMENTS, NODES, OPS, SLOTS, Killed, Mount


@pytest.fixture
def mount() -> Mount:
    return Mount()


def test_a_complete_file_is_registered_once_and_then_opened_at_once(mount):
    mount.store.fill(0)
    mount.ask_open(2)
    assert mount.kernel.pending
    mount.settle()
    mount.ask_open(2)
    assert not mount.kernel.pending
    assert mount.kernel.served == [(2, 1), (2, 1)]


def test_a_small_file_is_filled_before_it_is_opened(mount):
    mount.ask_open(2)
    assert [read.length for read in mount.line.reads] == [1]
    mount.settle()
    assert mount.kernel.served == [(2, 1)]


@pytest.mark.parametrize("outcome", ["inline", "error"])
def test_what_the_worker_cannot_store_is_read_through_us_until_nobody_has_it_open(mount, outcome):
    key = mount.ask_open(2)
    mount.answer_read(outcome)
    mount.store.fill(0)
    mount.ask_open(2)
    assert mount.kernel.served == [(2, 0), (2, 0)]
    for key in list(mount.kernel.opened):
        mount.ask_release(key)
    mount.ask_open(2)
    mount.settle()
    assert mount.kernel.served[2:] == [(2, 1)]
    assert mount.kernel.forgotten == [2]


def test_a_big_incomplete_file_is_read_through_us_at_once(mount):
    mount.ask_open(FILES + 1)
    assert mount.kernel.served == [(FILES + 1, 0)]


def test_a_file_evicted_while_it_was_registered_is_asked_for_again(mount):
    mount.store.fill(0)
    mount.ask_open(2)
    mount.store.evict(0)
    mount.store.fill(0)
    mount.settle()
    assert mount.kernel.served == [(2, 2)]
    assert list(mount.kernel.backing) == [2]


def test_a_file_that_is_evicted_again_and_again_is_read_through_us_in_the_end(mount):
    mount.ask_open(2)
    for _ in range(100):
        if mount.line.reads:
            mount.answer_read("gone again")
    assert mount.kernel.served == [(2, 0)]


def test_an_evicted_file_is_opened_as_before_while_open_then_given_back(mount):
    mount.store.fill(0)
    mount.ask_open(2)
    mount.settle()
    mount.store.evict(0)
    mount.ask_open(2)
    mount.opens.tick()
    assert mount.kernel.served == [(2, 1), (2, 1)]
    assert not mount.holder.questions
    for key in list(mount.kernel.opened):
        mount.ask_release(key)
    mount.opens.tick()
    mount.settle()
    assert not mount.kernel.backing


def test_without_a_holder_for_the_grace_time_open_ends_in_eio(mount):
    mount.store.fill(0)
    mount.ask_open(2)
    _, _, then = mount.holder.questions.popleft()
    then(2, 0, NO_HOLDER)
    assert mount.kernel.refused == [errno.EIO]
    mount.ask_open(2)
    mount.settle()
    assert mount.kernel.served == [(2, 1)]


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EMFILE, errno.EPERM])
def test_a_file_that_the_kernel_does_not_take_is_read_through_us(mount, code):
    mount.store.fill(0)
    mount.ask_open(2)
    _, _, then = mount.holder.questions.popleft()
    then(2, 0, code)
    assert mount.kernel.served == [(2, 0)]


def test_only_so_many_files_are_kept_open_the_longest_unused_goes(mount):
    mount.opens.ids_max = 2
    for row in (1, 0, 2):
        mount.store.fill(row)
        mount.ask_open(row + 2)
        mount.settle()
    for key in list(mount.kernel.opened):
        mount.ask_release(key)
    mount.ask_open(3)
    mount.opens.tick()
    mount.settle()
    assert [node for node in range(2, NODES) if mount.ids[node]] == [3, 4]


@pytest.mark.parametrize("moment", MOMENTS[:4])
def test_an_open_whose_process_was_killed_counts_once(mount, moment):
    mount.store.fill(0)
    mount.ask_open(2)
    mount.settle()
    mount.channel.moment = moment
    mount.ask_open(2)
    mount.settle()
    assert mount.opens._nodes[2].count == len(mount.kernel.opened) == 2


def test_an_open_that_comes_while_its_id_is_closed_gets_a_new_one(mount):
    mount.store.fill(0)
    mount.ask_open(2)
    mount.settle()
    mount.ask_release(next(iter(mount.kernel.opened)))
    mount.store.evict(0)
    mount.opens.tick()
    mount.ask_open(2)
    mount.settle()
    assert mount.kernel.served == [(2, 1), (2, 2)]


def test_more_open_files_than_slots_are_refused(mount):
    mount.store.fill(0)
    for _ in range(SLOTS + 1):
        mount.ask_open(2)
        mount.settle()
    assert mount.kernel.refused == [errno.ENFILE]
    assert len(mount.kernel.opened) == SLOTS


def test_a_successor_uses_the_ids_that_were_proved_and_no_other(mount):
    for row in (0, 1):
        mount.store.fill(row)
        mount.ask_open(row + 2)
    mount.answer_question()
    mount.ask_release(next(iter(mount.kernel.opened)))
    mount.holder.act(3, "register")  # and nobody was told
    mount.die()
    mount.ask_open(2)
    assert mount.kernel.served == [(2, 1), (2, 1)]
    mount.settle()
    assert mount.kernel.served[2:] == [(3, 3)]


def test_an_id_registered_for_a_predecessor_after_we_looked_is_of_the_file_we_proved(mount):
    """The file is evicted, and begun again, between the look at the ids and the proof."""
    mount.store.fill(0)
    mount.ask_open(2)
    mount.store.evict(0)  # begun again: not complete when it is registered
    proof = mount.store.proof

    def late(row):
        if mount.holder.stale:
            mount.holder.act_stale()
            mount.store.fill(0)
        return proof(row)

    mount.store.proof = late
    mount.die()
    mount.settle()
    assert len(mount.kernel.served) == 1


def test_no_tick_closes_what_is_open_before_it_was_taken_over(mount):
    mount.store.fill(0)
    mount.ask_open(2)
    mount.settle()
    mount.store.evict(0)
    mount.die()
    mount.settle()
    assert list(mount.kernel.backing) == [1]


def test_a_file_evicted_and_filled_again_between_two_looks_gives_its_old_space_back(mount):
    mount.store.fill(0)
    mount.ask_open(2)
    mount.settle()
    mount.ask_release(next(iter(mount.kernel.opened)))
    mount.store.evict(0)
    mount.store.fill(0)
    mount.opens.tick()
    mount.settle()
    assert not mount.kernel.backing


def test_an_open_sent_again_while_it_waits_counts_once(mount):
    mount.store.fill(0)
    mount.ask_open(2)
    mount.die(resend=True)
    mount.die(resend=True)
    assert len(mount.channel.entries) == 1
    mount.settle()
    assert mount.opens._nodes[2].count == len(mount.kernel.opened) == 1


def test_an_open_sent_again_after_its_slot_was_written_counts_once(mount):
    mount.store.fill(0)
    mount.ask_open(2)
    mount.settle()
    mount.channel.moment = "before reply"
    unique = next(mount.kernel.uniques)
    mount.kernel.pending[unique] = "open", 2, 0
    mount.channel.landing = Request(kernel.OPEN, unique, 2, bytes(8), LANDING)
    with pytest.raises(Killed):
        mount.dispatch(mount.channel.landing)
    again = mount.kernel.resend()  # by a process that was killed as soon as it had asked for it
    mount.die()
    for op, unique, node, _ in again:
        mount._deliver(OPS[op], unique, node, bytes(8))
    assert mount.opens._nodes[2].count == len(mount.kernel.opened) == 2


def test_a_holder_that_cannot_close_an_id_makes_no_open_fail(mount):
    mount.store.fill(0)
    mount.ask_open(2)
    mount.holder.act(2, "register")
    mount.die()
    for _ in range(100):
        if mount.holder.questions:
            node, _, then = mount.holder.questions.popleft()
            then(node, 0, errno.EIO)
    assert mount.kernel.served == [(2, 0)]


def test_pages_that_came_from_a_predecessor_are_forgotten_too(mount):
    mount.ask_open(2)
    mount.answer_read("inline")
    mount.ask_release(next(iter(mount.kernel.opened)))
    mount.die()
    mount.store.fill(0)
    mount.ask_open(2)
    mount.settle()
    assert mount.kernel.served[1:] == [(2, 1)]
    assert mount.kernel.forgotten == [2]


def test_more_ids_than_one_tick_checks_are_all_looked_at(mount):
    mount.opens.checked_ids = 1
    for row in range(3):
        mount.store.fill(row)
        mount.ask_open(row + 2)
    mount.settle()
    for key in list(mount.kernel.opened):
        mount.ask_release(key)
    mount.store.evict(2)
    for _ in range(3):
        mount.opens.tick()
        mount.settle()
    assert [node for node in range(NODES) if mount.ids[node]] == [2, 3]
