"""Frames over a real socket pair."""

from __future__ import annotations

import os
import socket
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache_worker.peers.errors import PeerUnavailable
from cache_worker.peers.stream import FileEndedError, Stream, split_address
from cacheop.api import wire
from cacheop.api.errors import ProtocolError

STALL_SECONDS = 0.2


@pytest.fixture
def ends():
    """(stream, the other end)."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        there = socket.create_connection(listener.getsockname())
        here, _ = listener.accept()
    stream = Stream(here, STALL_SECONDS)
    yield stream, there
    stream.close()
    there.close()


def test_frames_come_whole_however_they_are_cut(ends):
    stream, there = ends
    payload = os.urandom(100_000)
    frames = [
        wire.Frame(wire.EVENT, 7, {"n": 1}, payload),
        wire.Frame(wire.RESPONSE, 7, {"long": "x" * 9000}),
        wire.Frame(wire.ERROR, 8, {}, b"12"),
    ]
    data = b"".join(map(wire.encode, frames))

    def send() -> None:
        for start in range(0, len(data), 777):
            there.sendall(data[start : start + 777])

    sender = threading.Thread(target=send)
    sender.start()
    for frame in frames:
        head = stream.head(5)
        got = memoryview(bytearray(head.payload_bytes))
        stream.receive(got)
        assert wire.Frame(head.kind, head.request_id, head.meta, bytes(got)) == wire.Frame(
            frame.kind, frame.request_id, frame.meta, bytes(frame.payload)
        )
    sender.join()
    assert stream.is_quiet()


def test_silence_ends_in_time(ends):
    stream, there = ends
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        stream.head(0.5)
    assert 0.5 <= time.monotonic() - start < 2
    there.sendall(wire.encode(wire.Frame(wire.EVENT, 1, {}, b"abc"))[:-1])
    head = stream.head(5)
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        stream.receive(memoryview(bytearray(head.payload_bytes)))
    assert time.monotonic() - start < 2


def test_who_does_not_take_its_answer_is_given_up(ends, tmp_path):
    stream, _ = ends
    (tmp_path / "f").write_bytes(bytes(64 << 20))
    fd = os.open(tmp_path / "f", os.O_RDONLY)
    with pytest.raises(TimeoutError):
        stream.send_file(fd, 0, 64 << 20)
    with pytest.raises(TimeoutError):
        stream.send(bytes(1 << 20))
    os.close(fd)


def test_a_file_that_is_too_short_is_no_answer(ends, tmp_path):
    stream, _ = ends
    (tmp_path / "f").write_bytes(b"short")
    fd = os.open(tmp_path / "f", os.O_RDONLY)
    with pytest.raises(FileEndedError):
        stream.send_file(fd, 0, 6)
    os.close(fd)


def test_an_end_is_told_from_silence(ends):
    stream, there = ends
    assert stream.is_quiet()
    there.close()
    time.sleep(0.05)
    assert not stream.is_quiet()
    with pytest.raises(ConnectionError):
        stream.head(5)


def test_a_shutdown_by_another_thread_wakes_it(ends):
    stream, _ = ends
    threading.Timer(0.1, stream.shutdown).start()
    start = time.monotonic()
    with pytest.raises(ConnectionError):
        stream.head(30)
    assert time.monotonic() - start < 5


def test_a_long_meta_is_refused_where_short_ones_are_right(ends):
    stream, there = ends
    there.sendall(wire.encode(wire.Frame(wire.REQUEST, 1, {"x": "y" * 5000})))
    with pytest.raises(ProtocolError):
        stream.head(5, 4096)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.booleans())
def test_garbage_is_an_error_of_the_right_kind(data, with_magic):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sender = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
    stream = Stream(accepted, STALL_SECONDS)
    sender.sendall((b"CO\x01" if with_magic else b"") + data)
    sender.close()
    try:
        while True:
            head = stream.head(1)
            stream.receive(memoryview(bytearray(min(head.payload_bytes, 1 << 20))))
    except (ProtocolError, ConnectionError):
        pass
    finally:
        stream.close()


def test_addresses():
    assert split_address("10.0.0.1:80") == ("10.0.0.1", 80)
    assert split_address("[::1]:80") == ("::1", 80)
    for bad in ("", "10.0.0.1", ":80", "a:b"):
        with pytest.raises(PeerUnavailable):
            split_address(bad)
