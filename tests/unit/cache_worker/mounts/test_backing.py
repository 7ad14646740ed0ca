"""The line to the holder, against a holder that dies, refuses and is silent."""

from __future__ import annotations

import errno
import os
import queue
import socket
import time
from typing import TYPE_CHECKING

import pytest

from cache_worker.holder import messages
from cache_worker.mounts.backing import NO_HOLDER, Backing
from cacheop.api import names

if TYPE_CHECKING:
    from pathlib import Path

SERVE = {"op": "serve", "id": "m0", "lane": 0}


class Holder:
    """Listens where the holder does; every packet it gets is put into `heard`."""

    def __init__(self, root: Path) -> None:
        path = root / names.HOLDER_SOCKET
        path.unlink(missing_ok=True)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        here = os.open(root, os.O_PATH)
        self.listener.bind(f"/proc/self/fd/{here}/{names.HOLDER_SOCKET}")
        os.close(here)
        self.listener.listen()
        self.listener.settimeout(5)
        self.heard: queue.Queue[dict[str, object]] = queue.Queue()
        self.connection = self.accept()

    def accept(self) -> socket.socket:
        connection, _ = self.listener.accept()
        connection.settimeout(5)
        received = messages.receive(connection)
        assert received is not None
        assert received[0] == SERVE
        return connection

    def welcome(self) -> None:
        messages.send(self.connection, {"ok": True})

    def hear(self) -> dict[str, object]:
        received = messages.receive(self.connection)
        assert received is not None
        return received[0]

    def close(self) -> None:
        self.connection.close()
        self.listener.close()


@pytest.fixture
def answers():
    return queue.Queue()


def line(root: Path, grace_seconds: float = 60.0) -> Backing:
    made = Backing(str(root), "m0", 0, grace_seconds, lambda _: None)
    made.start()
    return made


def then(answers):
    return lambda *answer: answers.put(answer)


def test_questions_are_answered_in_order(tmp_path, answers):
    backing = line(tmp_path)
    backing.register(2, "data/v/a", then(answers))
    backing.close(3, then(answers))
    holder = Holder(tmp_path)
    holder.welcome()
    assert holder.hear() == {"op": "backing", "node": 2, "path": "data/v/a"}
    assert holder.hear() == {"op": "close", "node": 3}
    messages.send(holder.connection, {"node": 2, "backing": 7})
    messages.send(holder.connection, {"node": 3, "errno": errno.EINVAL, "message": "no such node"})
    assert answers.get(timeout=5) == (2, 7, 0)
    assert answers.get(timeout=5) == (3, 0, errno.EINVAL)
    holder.close()


def test_what_a_dead_holder_did_not_answer_is_asked_of_the_next(tmp_path, answers):
    backing = line(tmp_path)
    holder = Holder(tmp_path)
    holder.welcome()
    for node in (2, 3, 4):
        backing.register(node, f"data/v/{node}", then(answers))
    assert [holder.hear()["node"] for _ in range(3)] == [2, 3, 4]
    messages.send(holder.connection, {"node": 2, "backing": 1})
    assert answers.get(timeout=5) == (2, 1, 0)
    holder.close()
    started = time.monotonic()
    holder = Holder(tmp_path)
    assert time.monotonic() - started < 1
    holder.welcome()
    assert [holder.hear()["node"] for _ in range(2)] == [3, 4]
    messages.send(holder.connection, {"node": 3, "backing": 2})
    messages.send(holder.connection, {"node": 4, "backing": 3})
    assert [answers.get(timeout=5)[1] for _ in range(2)] == [2, 3]
    holder.close()


def test_many_questions_do_not_fill_the_socket(tmp_path, answers):
    backing = line(tmp_path)
    holder = Holder(tmp_path)
    holder.welcome()
    for node in range(2000):
        backing.register(node, "data/v/" + "x" * 3000, then(answers))
    for node in range(2000):
        assert holder.hear()["node"] == node
        messages.send(holder.connection, {"node": node, "backing": node + 1})
    assert [answers.get(timeout=5)[0] for _ in range(2000)] == list(range(2000))
    holder.close()


def test_without_a_holder_for_the_grace_time_the_asker_is_told(tmp_path, answers):
    backing = line(tmp_path, grace_seconds=0.3)
    started = time.monotonic()
    backing.register(2, "data/v/a", then(answers))
    assert answers.get(timeout=5) == (2, 0, NO_HOLDER)
    assert time.monotonic() - started > 0.2
    holder = Holder(tmp_path)
    holder.welcome()
    backing.register(3, "data/v/a", then(answers))
    assert holder.hear()["node"] == 3
    holder.close()


def test_the_mode_is_told_to_the_next_holder_however_late_it_comes(tmp_path):
    backing = line(tmp_path, grace_seconds=0.1)
    backing.tell_mode("Fuse", "an old kernel")
    time.sleep(0.4)
    holder = Holder(tmp_path)
    holder.welcome()
    assert holder.hear() == {"op": "mode", "mode": "Fuse", "why": "an old kernel"}
    holder.close()


def test_a_holder_that_refuses_to_serve_is_asked_again(tmp_path, answers):
    backing = line(tmp_path)
    backing.register(2, "data/v/a", then(answers))
    holder = Holder(tmp_path)
    messages.send(holder.connection, {"errno": errno.EAGAIN, "message": "not yet"})
    holder.connection = holder.accept()
    holder.welcome()
    assert holder.hear()["node"] == 2
    holder.close()


def test_a_holder_that_lives_and_says_nothing_is_no_holder(tmp_path, answers):
    backing = line(tmp_path, grace_seconds=0.3)
    holder = Holder(tmp_path)
    holder.welcome()
    backing.register(2, "data/v/a", then(answers))
    assert holder.hear()["node"] == 2
    assert answers.get(timeout=3) == (2, 0, NO_HOLDER)
    holder.close()


def test_an_answer_for_another_node_is_not_believed(tmp_path, answers):
    backing = line(tmp_path)
    backing.register(2, "data/v/a", then(answers))
    holder = Holder(tmp_path)
    holder.welcome()
    assert holder.hear()["node"] == 2
    messages.send(holder.connection, {"node": 3, "backing": 9})
    holder.connection = holder.accept()
    holder.welcome()
    assert holder.hear()["node"] == 2
    messages.send(holder.connection, {"node": 2, "backing": 5})
    assert answers.get(timeout=5) == (2, 5, 0)
    holder.close()
