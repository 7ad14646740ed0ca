"""PassthroughOpens against a kernel that enforces its rules, killed at any moment."""

from __future__ import annotations

import errno
import struct
from collections import deque

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cache_worker.mounts import kernel, passthrough
from cache_worker.mounts.backing import NO_HOLDER
from cache_worker.mounts.channel import LANDING, Request
from cache_worker.mounts.openslots import OpenSlots
from cacheop.api.chunk import CHUNK_BYTES

FILES = 4  # the last of them has two chunks
NODES = FILES + 2
SLOTS = 64
OPENS_MAX = 24
OPS = {"open": kernel.OPEN, "release": kernel.RELEASE}
MOMENTS = (
    "before slot",
    "after slot",
    "before reply",
    "after reply",
    "before clear",
    "after clear",
)


class Killed(BaseException):
    """The process is no more."""


class Kernel:
    """One FUSE connection: rules as Linux has them, the ids, what waits, what is open."""

    def __init__(self) -> None:
        self.uniques = iter(range(2, 1 << 40, 2))
        self.pending: dict[int, tuple[str, int, int]] = {}  # op, node, handle
        self.opened: dict[tuple[int, int], int] = {}  # (handle, unique) -> node
        self.way: dict[int, int] = {}  # node -> backing id, 0 = cached
        self.backing: dict[int, tuple[int, int]] = {}  # id -> the file's incarnation
        self.forgotten: list[int] = []
        self.refused: list[int] = []
        self.served: list[tuple[int, int]] = []

    def reply(self, unique: int, body: bytes | None, errno_code: int) -> bool:
        found = self.pending.pop(unique, None)
        if found is None:
            return False
        op, node, _ = found
        if op == "release":
            assert errno_code == 0
        elif errno_code:
            self.refused.append(errno_code)
        else:
            self._open(node, unique, *kernel.OPEN_OUT.unpack(body))
        return True

    def _open(self, node: int, unique: int, handle: int, flags: int, backing: int) -> None:
        if flags & kernel.FOPEN_PASSTHROUGH:
            assert backing in self.backing, "an id that is closed"
            assert self.backing[backing][0] == node, "another file's id"
            assert self.backing[backing][1] & 1, "a file that was not complete"
        else:
            assert flags == kernel.FOPEN_KEEP_CACHE | kernel.FOPEN_NOFLUSH
            assert backing == 0
        if node in self.opened.values():
            assert self.way[node] == backing, "EIO"
        assert handle not in {handle for handle, _ in self.opened}, "a handle given twice"
        self.way[node] = backing
        self.opened[handle, unique] = node
        self.served.append((node, backing))

    def resend(self) -> list[tuple[str, int, int, int]]:
        """Who waits gets a number that says so; the old one is known no more."""
        self.pending = {unique | kernel.RESENT: what for unique, what in self.pending.items()}
        return [(op, unique, node, handle) for unique, (op, node, handle) in self.pending.items()]

    def close(self, backing: int) -> None:
        for node in self.opened.values():
            assert self.way[node] != backing, "an id is closed while it is in use"
        del self.backing[backing]


class Store:
    """Files: `state` counts fills and evictions, odd = complete. Stands for index, table, slots."""

    version = "v1"

    def __init__(self) -> None:
        self.state = [0] * FILES
        self.index = self

    def size(self, row: int) -> int:
        return CHUNK_BYTES + 1 if row == FILES - 1 else 100

    def path(self, row: int) -> str:
        return f"f{row}"

    def proof(self, row: int) -> int | None:
        return self.state[row] + 2 if self.state[row] & 1 else None

    def is_complete(self, row: int) -> bool:
        return bool(self.state[row] & 1)

    def fill(self, row: int) -> None:
        self.state[row] |= 1

    def evict(self, row: int) -> None:
        if self.state[row] & 1:
            self.state[row] += 1


class Holder:
    """The ids, and the questions of the one mount process, answered in order."""

    def __init__(self, of: Kernel, store: Store, ids: memoryview) -> None:
        self.kernel, self.store, self.ids = of, store, ids
        self.numbers = iter(range(1, 1 << 20))
        self.questions: deque[tuple[int, str, object]] = deque()
        self.stale: deque[tuple[int, str]] = deque()
        """Of a process that died: looked at, perhaps, until its successor is heard."""

    def register(self, node: int, path: str, then: object) -> None:
        assert path == f"data/v1/f{node - 2}"
        self.questions.append((node, "register", then))

    def close(self, node: int, then: object) -> None:
        self.questions.append((node, "close", then))

    def act_stale(self) -> None:
        self.act(*self.stale.popleft())

    def act(self, node: int, what: str) -> tuple[int, int]:
        if what == "close":
            if self.ids[node]:
                backing, self.ids[node] = self.ids[node], 0
                self.kernel.close(backing)
            return 0, 0
        if self.store.state[node - 2] == 0:
            return 0, errno.ENOENT
        if not self.ids[node]:
            self.ids[node] = next(self.numbers)
            self.kernel.backing[self.ids[node]] = node, self.store.state[node - 2]
        return self.ids[node], 0


class Channel:
    """The ring's promises: one landing slot, parked entries that outlive the process."""

    fd = -1

    def __init__(self, of: Kernel) -> None:
        self.kernel = of
        self.landing: Request | None = None
        self.entries: dict[int, Request] = {}
        self.moment = ""

    def reach(self, moment: str) -> None:
        if moment == self.moment:
            self.moment = ""
            raise Killed

    def park(self, request: Request) -> Request:
        if request.place != LANDING:
            return request
        place = next(n for n in range(1000) if n not in self.entries)
        self.entries[place] = request._replace(place=place, body=bytes(request.body))
        return self.entries[place]

    def answer(self, request: Request, body: bytes = b"") -> bool:
        self.reach("before reply")
        taken = self.kernel.reply(request.unique, body, 0)
        self.reach("after reply")
        self.entries.pop(request.place, None)
        return taken

    def forget(self, request: Request) -> None:
        self.entries.pop(request.place, None)

    def fail(self, request: Request, errno_code: int) -> bool:
        taken = self.kernel.reply(request.unique, None, errno_code)
        self.entries.pop(request.place, None)
        return taken

    def leftovers(self) -> list[Request]:
        found = [self.entries[place] for place in sorted(self.entries)]
        if self.landing and self.landing.unique not in {r.unique for r in found}:
            found.append(self.landing)
        return found


class Slots(OpenSlots):
    """Dies before or after each write."""

    def __init__(self, part: memoryview, channel: Channel) -> None:
        super().__init__(part)
        self._channel = channel

    def take(self, node: int, unique: int, *, passed: bool) -> int | None:
        self._channel.reach("before slot")
        handle = super().take(node, unique, passed=passed)
        self._channel.reach("after slot")
        return handle

    def clear(self, handle: int, node: int) -> bool:
        self._channel.reach("before clear")
        cleared = super().clear(handle, node)
        self._channel.reach("after clear")
        return cleared


class Line:
    def __init__(self) -> None:
        self.reads: deque[object] = deque()

    def ask(self, read: object) -> None:
        self.reads.append(read)


class Opens(passthrough.PassthroughOpens):
    """Pages are forgotten in the model kernel."""

    def _forget_pages(self, node: int) -> None:
        self._channel.kernel.forgotten.append(node)


class Mount:
    """All of it; `die` replaces the process."""

    def __init__(self) -> None:
        self.kernel, self.store = Kernel(), Store()
        self.ids = memoryview(bytearray(4 * NODES)).cast("I")
        self.part = memoryview(bytearray(8 * SLOTS))
        self.proofs = memoryview(bytearray(NODES))
        self.channel = Channel(self.kernel)
        self.holder = Holder(self.kernel, self.store, self.ids)
        self.born()

    def born(self) -> None:
        self.line = Line()
        slots = Slots(self.part, self.channel)
        self.opens = Opens(
            self.channel, self.line, self.store, self.holder, slots, self.ids, self.proofs
        )

    def die(self, *, resend: bool = False) -> None:
        """The holder may still look at questions, and answers nobody; a tick may come early."""
        self.channel.moment = ""
        self.holder.stale += [(node, what) for node, what, _ in self.holder.questions]
        self.holder.questions.clear()
        self.born()
        self.opens.tick()
        self.opens.take_over()
        for request in self.channel.leftovers():
            self.dispatch(request)
        if resend:
            self.resend()

    def resend(self) -> None:
        for op, unique, node, handle in self.kernel.resend():
            if unique in self.kernel.pending:
                body = struct.pack("<QIIQ", handle, 0, 0, 0)
                self._deliver(OPS[op], unique, node, body)

    def act(self, call) -> None:
        """Run a step of the process, which may be killed in it; then the next one takes over."""
        try:
            call()
        except Killed:
            self.die()

    def dispatch(self, request: Request) -> None:
        if request.op == kernel.OPEN:
            self.opens.open(request, request.node - 2)
        else:
            self.opens.release(request, request.node - 2)

    def _deliver(self, op: int, unique: int, node: int, body: bytes) -> None:
        self.channel.landing = Request(op, unique, node, body, LANDING)
        self.act(lambda: self.dispatch(self.channel.landing))

    def ask_open(self, node: int) -> int:
        unique = next(self.kernel.uniques)
        self.kernel.pending[unique] = "open", node, 0
        self._deliver(kernel.OPEN, unique, node, b"\0" * 8)
        return unique

    def ask_release(self, key: tuple[int, int]) -> None:
        node = self.kernel.opened.pop(key)
        unique = next(self.kernel.uniques)
        self.kernel.pending[unique] = "release", node, key[0]
        self._deliver(kernel.RELEASE, unique, node, struct.pack("<QIIQ", key[0], 0, 0, 0))

    def answer_question(self) -> None:
        self.holder.stale.clear()
        node, what, then = self.holder.questions.popleft()
        backing, code = self.holder.act(node, what)
        self.act(lambda: then(node, backing, code))

    def answer_read(self, outcome: str) -> None:
        read = self.line.reads.popleft()
        if outcome == "filled":
            self.store.fill(read.row)
        codes = {"error": errno.EIO}
        payload = b"x" if outcome == "inline" else None
        self.act(lambda: read.then(read, payload, codes.get(outcome, 0)))

    def settle(self) -> None:
        for _ in range(1000):
            if self.holder.questions:
                self.answer_question()
            elif self.line.reads:
                self.answer_read("filled")
            else:
                return
        pytest.fail("it never comes to rest")


class Machine(RuleBasedStateMachine):
    @initialize(complete=st.lists(st.booleans(), min_size=FILES, max_size=FILES))
    def begin(self, complete) -> None:
        self.mount = Mount()
        for row, whole in enumerate(complete):
            if whole:
                self.mount.store.fill(row)

    @precondition(lambda self: len(self.mount.kernel.opened) < OPENS_MAX)
    @rule(row=st.integers(0, FILES - 1))
    def open(self, row) -> None:
        if len(self.mount.kernel.pending) < OPENS_MAX:
            self.mount.ask_open(row + 2)

    @precondition(lambda self: self.mount.kernel.opened)
    @rule(data=st.data())
    def release(self, data) -> None:
        keys = list(self.mount.kernel.opened)
        self.mount.ask_release(keys[data.draw(st.integers(0, len(keys) - 1))])

    @precondition(lambda self: self.mount.holder.questions)
    @rule()
    def holder_answers(self) -> None:
        self.mount.answer_question()

    @precondition(lambda self: self.mount.holder.questions)
    @rule()
    def holder_acts_and_dies(self) -> None:
        """The next holder is asked the same again."""
        for node, what, _ in list(self.mount.holder.questions)[:2]:
            self.mount.holder.act(node, what)

    @precondition(lambda self: self.mount.holder.stale)
    @rule()
    def holder_acts_for_one_who_died(self) -> None:
        self.mount.holder.act_stale()

    @precondition(lambda self: self.mount.holder.questions)
    @rule()
    def holder_fails(self) -> None:
        """Whatever it was: the open must not fail, nor anybody wait."""
        node, _, then = self.mount.holder.questions.popleft()
        self.mount.act(lambda: then(node, 0, errno.EIO))

    @precondition(lambda self: self.mount.line.reads)
    @rule(outcome=st.sampled_from(["filled", "filled", "inline", "error", "gone again"]))
    def worker_answers(self, outcome) -> None:
        self.mount.answer_read(outcome)

    @rule(row=st.integers(0, FILES - 1))
    def fill(self, row) -> None:
        self.mount.store.fill(row)

    @rule(row=st.integers(0, FILES - 1))
    def evict(self, row) -> None:
        self.mount.store.evict(row)

    @precondition(lambda self: self.mount.kernel.pending)
    @rule(data=st.data())
    def interrupt(self, data) -> None:
        uniques = [u for u, (op, *_) in self.mount.kernel.pending.items() if op == "open"]
        if not uniques:
            return
        unique = uniques[data.draw(st.integers(0, len(uniques) - 1))]
        self.mount.channel.landing = None  # INTERRUPT is a request, too
        if self.mount.opens.drop(unique):
            place = next(n for n, r in self.mount.channel.entries.items() if r.unique == unique)
            self.mount.channel.fail(self.mount.channel.entries[place], errno.EINTR)

    @rule()
    def tick(self) -> None:
        self.mount.opens.tick()

    @rule(resend=st.booleans())
    def kill(self, resend) -> None:
        self.mount.die(resend=resend)

    @rule(moment=st.sampled_from(MOMENTS))
    def kill_soon(self, moment) -> None:
        self.mount.channel.moment = moment

    @invariant()
    def nothing_fails(self) -> None:
        assert set(self.mount.kernel.refused) <= {errno.EINTR}

    def teardown(self) -> None:
        if not hasattr(self, "mount"):
            return
        mount = self.mount
        mount.settle()
        assert not mount.kernel.pending, "somebody waits for ever"
        assert not mount.channel.entries
        counts = {node: found.count for node, found in mount.opens._nodes.items() if found.count}
        nodes = list(mount.kernel.opened.values())
        assert counts == {node: nodes.count(node) for node in set(nodes)}
        for key in list(mount.kernel.opened):
            mount.ask_release(key)
        assert not any(mount.part)
        assert not any(found.count for found in mount.opens._nodes.values())
        for row in range(FILES):
            mount.store.evict(row)
            if row % 2:  # another file is there when we look
                mount.store.fill(row)
        mount.opens.tick()
        mount.settle()
        assert not any(mount.ids)
        assert set(mount.proofs) <= {0, 1}
        assert not mount.kernel.backing
        self.nothing_fails()


Machine.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestMachine = Machine.TestCase


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


def test_only_so_many_files_are_kept_open_the_longest_unused_goes(mount, monkeypatch):
    monkeypatch.setattr(passthrough, "IDS_MAX", 2)
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


def test_more_ids_than_one_tick_checks_are_all_looked_at(mount, monkeypatch):
    monkeypatch.setattr(passthrough, "CHECKED_IDS", 1)
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
