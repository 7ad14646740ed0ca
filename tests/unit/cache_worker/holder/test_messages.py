from __future__ import annotations

import os
import socket

import pytest

from cache_worker.holder import messages
from cache_worker.holder.connection import Connection
from cacheop.api.errors import ProtocolError


@pytest.fixture
def pair():
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    yield one, other
    one.close()
    other.close()


def test_a_message_brings_its_fds(pair):
    read, write = os.pipe()
    messages.send(pair[0], {"op": "x", "text": "ä"}, [read, write])
    received = messages.receive(pair[1])
    assert received is not None
    message, fds = received
    assert message == {"op": "x", "text": "ä"}
    os.write(fds[1], b"through")
    assert os.read(read, 10) == b"through"
    assert not any(os.get_inheritable(fd) for fd in fds)
    messages.close_all([read, write, *fds])


def test_the_other_side_left(pair):
    pair[0].close()
    assert messages.receive(pair[1]) is None


@pytest.mark.parametrize("packet", [b"[]", b"x", b"1", b"\xff", b"[" * 60_000, b" " * 70_000])
def test_what_is_no_message_is_refused_and_its_fds_closed(pair, packet):
    before = len(os.listdir("/proc/self/fd"))
    messages.send_packet(pair[0], packet, [0, 1, 2])
    with pytest.raises(ProtocolError):
        messages.receive(pair[1])
    assert len(os.listdir("/proc/self/fd")) == before


def test_too_many_fds_are_refused_and_closed(pair):
    before = len(os.listdir("/proc/self/fd"))
    messages.send(pair[0], {}, [0] * (messages.FDS_MAX + 3))
    with pytest.raises(ProtocolError):
        messages.receive(pair[1])
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_connection_queues_what_is_not_read_yet_in_order_with_its_fds(pair):
    connection = Connection(pair[0])
    read, write = os.pipe()
    for number in range(2000):
        connection.send({"n": number}, [read] if number == 1999 else [])
    os.close(read)
    assert connection.has_more
    for number in range(2000):
        connection.flush()
        received = messages.receive(pair[1])
        assert received is not None
        assert received[0] == {"n": number}
    assert not connection.has_more
    os.write(write, b"x")
    assert os.read(received[1][0], 1) == b"x"
    messages.close_all([write, *received[1]])


def test_a_connection_says_who_is_there(pair):
    assert Connection(pair[0]).uid == os.geteuid()


def test_a_closed_connection_closes_what_it_queued(pair):
    before = len(os.listdir("/proc/self/fd"))
    connection = Connection(pair[0])
    while not connection.has_more:
        connection.send({"text": "x" * 1000}, [0])
    pair[1].close()
    connection.close()
    connection.send({"op": "late"})
    assert len(os.listdir("/proc/self/fd")) == before - 2
