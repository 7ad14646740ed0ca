"""The dispatcher fed with anything: each request gets one answer or none, and it lives."""

from __future__ import annotations

import errno
import os
import socket

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cache_worker.mounts import kernel
from cache_worker.mounts.channel import Channel
from cache_worker.mounts.fuse import FuseMount
from cache_worker.mounts.line import Line
from cache_worker.mounts.opens import PlainOpens, ZeroOpens
from cache_worker.mounts.ring import RING_BYTES, Lane, Ring
from cache_worker.mounts.stored import StoredVersion
from cache_worker.mounts.tree import Tree
from tests.fakes.stored_version import content, lay_out

FILES = {"dir/file": 10_000, "dir/other": 5, "top": 0}
NEVER_ANSWERED = {*kernel.NO_ANSWER, kernel.INTERRUPT}


class Mounted:
    """A mount whose kernel is the test."""

    def __init__(self, root, opens=PlainOpens) -> None:
        self.store = lay_out(root, FILES)
        self.store.fill_all()
        self.kernel, self.fuse = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.kernel.setblocking(False)
        ring_fd = os.memfd_create("ring")
        os.ftruncate(ring_fd, RING_BYTES)
        stored = StoredVersion(root, self.store.version, print)
        line = Line(
            str(root / "none.sock"),
            self.store.version,
            grace_seconds=1,
            ticked=lambda: None,
            report=print,
        )
        self.channel = Channel(self.fuse.fileno(), Lane(Ring(ring_fd), 0))
        self.mount = FuseMount(
            self.channel, Tree(stored.index), stored, line, opens(self.channel), self._init
        )

    def _init(self, request, _row) -> None:
        kernel.parse_init(request.body)
        self.channel.answer(request)

    def node(self, path: str) -> int:
        row = self.store.index.resolve(path)
        assert row is not None
        return row + 2

    def ask(self, op: int, node: int, body: bytes = b"", unique: int = 10) -> None:
        head = kernel.IN_HEADER.pack(40 + len(body), op, unique, node, 0, 0, 0, 0, 0)
        self.kernel.send(head + body)
        request = self.channel.receive()
        assert request is not None
        self.mount.dispatch(request)

    def answers(self) -> list[tuple[int, int, bytes]]:
        """(unique, errno, body) of all that came."""
        found = []
        while True:
            try:
                data = self.kernel.recv(2 << 20)
            except BlockingIOError:
                return found
            length, error, unique = kernel.OUT_HEADER.unpack_from(data)
            assert length == len(data)
            found.append((unique, -error, data[16:]))


@pytest.fixture
def mounted(tmp_path):
    return Mounted(tmp_path)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    op=st.one_of(st.integers(0, 60), st.integers(0, 2**32 - 1)),
    node=st.one_of(st.integers(0, 8), st.integers(0, 2**64 - 1)),
    body=st.one_of(st.binary(max_size=120), st.binary(max_size=8000)),
)
def test_whatever_is_asked_gets_at_most_one_answer(mounted, op, node, body):
    mounted.ask(op, node, body)
    answers = mounted.answers()
    assert all(unique == 10 for unique, _, _ in answers)
    waits = op == kernel.READ and mounted.channel._lane.taken()
    if op in NEVER_ANSWERED:
        assert len(answers) <= (op == kernel.INTERRUPT)
    else:
        assert len(answers) == (0 if waits else 1)
    mounted.ask(kernel.READ, mounted.node("dir/other"), kernel.READ_IN.pack(0, 0, 5), unique=12)
    assert mounted.answers() == [(12, 0, content("dir/other", 0, 5))]


@pytest.mark.parametrize(
    ("op", "path", "body", "code"),
    [
        (kernel.OPEN, "dir", bytes(8), errno.EISDIR),
        (kernel.READ, "dir", bytes(40), errno.EISDIR),
        (kernel.LOOKUP, "top", b"x\0", errno.ENOTDIR),
        (kernel.READDIR, "top", bytes(40), errno.ENOTDIR),
        (kernel.LOOKUP, "dir", b"file", errno.EIO),  # no NUL
        (kernel.LOOKUP, "dir", b"fi\0le\0", errno.EIO),
        (kernel.LOOKUP, "dir", b"", errno.EIO),
        (kernel.OPEN, "top", b"", errno.EIO),
        (kernel.OPEN, "top", os.O_RDWR.to_bytes(4, "little") + bytes(4), errno.EROFS),
        (kernel.READ, "top", bytes(10), errno.EIO),
        (kernel.READ, "dir/file", kernel.READ_IN.pack(0, 0, 1 << 30), errno.EIO),
        (kernel.GETXATTR, "top", b"\0", errno.EIO),
        (25, "top", bytes(24), errno.ENOSYS),  # FLUSH
        (16, "top", bytes(40), errno.EROFS),  # WRITE
        (999, "top", b"", errno.ENOSYS),
    ],
)
def test_what_cannot_be_is_refused(mounted, op, path, body, code):
    mounted.ask(op, mounted.node(path), body)
    assert mounted.answers() == [(10, code, b"")]


@pytest.mark.parametrize("node", [0, 6, 2**40, 2**64 - 1])
@pytest.mark.parametrize("op", [kernel.OPEN, kernel.READ, kernel.GETATTR, kernel.LOOKUP])
def test_a_node_that_is_not_of_this_version_is_stale(mounted, op, node):
    mounted.ask(op, node, bytes(40))
    assert mounted.answers() == [(10, errno.ESTALE, b"")]


def test_zero_open_answers_enosys_for_files_and_directories(tmp_path):
    mounted = Mounted(tmp_path, ZeroOpens)
    mounted.ask(kernel.OPEN, mounted.node("top"), bytes(8))
    mounted.ask(kernel.OPENDIR, mounted.node("dir"), bytes(8))
    assert mounted.answers() == [(10, errno.ENOSYS, b"")] * 2


def test_an_interrupt_ends_a_read_that_waits_for_the_worker(mounted):
    row = mounted.store.index.resolve("dir/file")
    mounted.store.drop(row)
    mounted.ask(kernel.READ, row + 2, kernel.READ_IN.pack(0, 0, 4096) + bytes(20))
    assert mounted.answers() == []
    mounted.ask(kernel.INTERRUPT, 0, (10).to_bytes(8, "little"), unique=11)
    assert mounted.answers() == [(10, errno.EINTR, b"")]
    assert mounted.channel._lane.taken() == []
