"""The ring and the channel over it, with a socket of packets in place of /dev/fuse."""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
import time

import pytest

from cache_worker.mounts import kernel
from cache_worker.mounts.channel import LANDING, Channel
from cache_worker.mounts.kernel import Init
from cache_worker.mounts.ring import LANES_MAX, PARKED, RING_BYTES, Lane, Ring
from cacheop.api.errors import StoreError


def message(op: int, unique: int, node: int = 3, body: bytes = b"") -> bytes:
    return kernel.IN_HEADER.pack(40 + len(body), op, unique, node, 0, 0, 0, 0, 0) + body


class Kernel:
    """The other end: sends requests, takes answers, and a ring that outlives who serves."""

    def __init__(self) -> None:
        self.theirs, self.ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ring_fd = os.memfd_create("ring")
        os.ftruncate(self.ring_fd, RING_BYTES)

    def serve(self, number: int = 0) -> Channel:
        return Channel(self.ours.fileno(), Lane(Ring(self.ring_fd), number))

    def ask(self, op: int, unique: int, body: bytes = b"") -> None:
        self.theirs.send(message(op, unique, body=body))

    def answer(self) -> tuple[int, int, bytes]:
        """(unique, errno, body)."""
        data = self.theirs.recv(1 << 20)
        length, error, unique = kernel.OUT_HEADER.unpack_from(data)
        assert length == len(data)
        return unique, -error, data[16:]

    def close(self) -> None:
        self.theirs.close()
        self.ours.close()
        os.close(self.ring_fd)


@pytest.fixture
def asker():
    made = Kernel()
    yield made
    made.close()


def left(channel: Channel) -> list[tuple[int, int, int, bytes]]:
    return [(r.op, r.unique, r.node, bytes(r.body)) for r in channel.leftovers()]


def test_a_request_is_in_the_ring_until_the_next_is_received(asker):
    channel = asker.serve()
    asker.ask(kernel.OPEN, 10, b"12345678")
    request = channel.receive()
    assert request[:3] == (kernel.OPEN, 10, 3)
    assert request.place == LANDING
    assert left(asker.serve()) == [(kernel.OPEN, 10, 3, b"12345678")]
    assert channel.answer(request, b"yes")
    assert asker.answer() == (10, 0, b"yes")
    asker.ask(kernel.READ, 12)
    channel.receive()
    assert left(asker.serve()) == [(kernel.READ, 12, 3, b"")]


def test_a_parked_request_is_left_until_it_is_answered(asker):
    channel = asker.serve()
    for unique in (10, 12):
        asker.ask(kernel.READ, unique, bytes(range(40)))
        parked = channel.park(channel.receive())
        assert parked.place != LANDING
        assert channel.park(parked) is parked
    # The one that was parked last is in the landing slot too: it comes once.
    body = bytes(range(40))
    assert left(asker.serve()) == [(kernel.READ, 10, 3, body), (kernel.READ, 12, 3, body)]
    assert channel.fail(parked, errno.EIO)
    assert asker.answer() == (12, errno.EIO, b"")
    asker.ask(kernel.GETATTR, 14)
    channel.receive()
    assert [unique for _, unique, _, _ in left(asker.serve())] == [10, 14]


def test_a_request_that_is_parked_half_is_the_landing_slots(asker):
    channel = asker.serve()
    asker.ask(kernel.READ, 10, bytes(40))
    request = channel.receive()
    lane = Lane(Ring(asker.ring_fd), 0)
    lane.store(0, message(kernel.READ, 10, body=bytes(40)), 0)  # killed before the id was written
    assert left(asker.serve()) == [(kernel.READ, 10, 3, bytes(40))]
    channel.answer(request)


def test_the_first_lane_takes_what_is_left_in_lanes_without_a_process(asker):
    pid = os.fork()  # locks are a process's
    if pid == 0:
        channel = asker.serve(3)
        for unique, body in [(10, bytes(40)), (12, b"n" * 200 + b"\0")]:
            asker.ask(kernel.READ if unique == 10 else kernel.LOOKUP, unique, body)
            request = channel.receive()
            if unique == 10:
                channel.park(request)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert left(asker.serve(1)) == []
    assert left(asker.serve(0)) == [
        (kernel.READ, 10, 3, bytes(40)),
        (kernel.LOOKUP, 12, 3, b"n" * 200 + b"\0"),
    ]
    assert left(asker.serve(0)) == []


def test_a_lane_has_one_process_at_a_time(asker):
    there, gone = os.pipe()
    pid = os.fork()
    if pid == 0:
        channel = asker.serve(0)
        os.write(gone, b"x")
        time.sleep(0.3)
        del channel  # with it goes the lock
        os._exit(0)
    os.read(there, 1)
    started = time.monotonic()
    asker.serve(0)
    assert time.monotonic() - started > 0.2
    os.waitpid(pid, 0)
    os.close(there)
    os.close(gone)


def test_parking_waits_while_all_entries_are_taken(asker):
    channel = asker.serve()
    asker.ask(kernel.READ, 10)
    request = channel.receive()
    parked = [channel.park(request._replace(unique=2 * n + 2)) for n in range(PARKED)]
    late: list[int] = []
    thread = threading.Thread(target=lambda: late.append(channel.park(request).place))
    thread.start()
    thread.join(0.1)
    assert late == []
    channel.fail(parked[5], errno.EIO)
    thread.join(5)
    assert late == [parked[5].place]


def test_an_answer_that_nobody_wants_says_so_and_frees_its_place():
    # What the kernel says to an answer that it does not know: here, a pipe nobody reads from.
    ring_fd = os.memfd_create("ring")
    os.ftruncate(ring_fd, RING_BYTES)
    read_end, write_end = os.pipe()
    lane = Lane(Ring(ring_fd), 0)
    channel = Channel(read_end, lane)  # writing fails with EBADF
    os.write(write_end, message(kernel.READ, 10))
    parked = channel.park(channel.receive())
    with pytest.raises(OSError, match="Bad file"):
        channel.answer(parked)  # not one of the errors that mean "nobody waits"
    for fd in (ring_fd, read_end, write_end):
        os.close(fd)


def test_a_request_of_a_wrong_length_gets_eio_and_the_next_is_served(asker):
    channel = asker.serve()
    asker.theirs.send(b"short")
    asker.theirs.send(struct.pack("<I", 999) + message(kernel.OPEN, 10)[4:])
    asker.ask(kernel.OPEN, 12)
    assert channel.receive().unique == 12
    assert asker.answer() == (10, errno.EIO, b"")


def test_what_was_agreed_with_the_kernel_is_kept(asker):
    assert Ring(asker.ring_fd).agreed is None
    Ring(asker.ring_fd).agree(Init(31, 8 << 20, 1 << 39 | 5))
    assert Ring(asker.ring_fd).agreed == Init(31, 8 << 20, 1 << 39 | 5)


def test_requests_are_counted_over_all_lanes_and_processes(asker):
    for number in (0, 1, LANES_MAX - 1, 0):
        channel = asker.serve(number)
        for op in (kernel.OPEN, kernel.READ, 60, 4000):
            asker.ask(op, 10)
            channel.receive()
    assert Ring(asker.ring_fd).requests() == {"OPEN": 4, "READ": 4, "OP60": 4, "OP0": 4}


def test_an_interrupted_request_that_another_process_holds_is_answered(asker):
    first, second = asker.serve(0), asker.serve(1)
    asker.ask(kernel.READ, 10, bytes(40))
    request = first.receive()
    assert not second.interrupt(10, dropped=False)  # about to be parked: look again
    parked = first.park(request)
    first.hurry(parked, hurried=True)
    first.answer(request)  # as if it read on: the landing slot is another's by now
    asker.answer()
    asker.ask(kernel.READ, 12, bytes(40))
    first.park(first.receive())
    assert second.interrupt(10, dropped=False)  # read from the disk right now: left alone
    assert second.interrupt(12, dropped=False) is True
    assert asker.answer() == (12, errno.EINTR, b"")
    assert first.interrupt(10, dropped=True)
    assert asker.answer() == (10, errno.EINTR, b"")
    assert [unique for _, unique, _, _ in left(asker.serve(0))] == [12]


def test_a_ring_of_another_size_is_refused(tmp_path):
    fd = os.memfd_create("ring")
    os.ftruncate(fd, 4096)
    with pytest.raises(StoreError, match="ring"):
        Ring(fd)
    os.ftruncate(fd, RING_BYTES)
    with pytest.raises(StoreError, match="lanes"):
        Lane(Ring(fd), LANES_MAX)
    os.close(fd)


def test_a_request_that_is_forgotten_leaves_its_entry_unanswered(asker):
    channel = asker.serve()
    asker.ask(kernel.OPEN, 10)
    received = channel.receive()
    assert received is not None
    channel.forget(channel.park(received))
    assert channel._lane.taken() == []
    asker.ask(kernel.OPEN, 12)
    received = channel.receive()
    assert received is not None
    channel.answer(received)
    assert asker.answer()[0] == 12
