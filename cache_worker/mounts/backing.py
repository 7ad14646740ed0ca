"""The mount process's line to the holder: backing ids for files that the kernel reads by itself.

One thread owns the socket. Questions wait while no holder is there and are asked again of the next
one: to register a node twice gives the same id, to close it twice closes nothing. Answers come in
the order of the questions. A holder away longer than the grace time means NO_HOLDER.
"""

from __future__ import annotations

import errno
import os
import select
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from cacheop.api.errors import CacheopError, ProtocolError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    Then = Callable[[int, int, int], None]

RETRY_SECONDS = 0.05
ANSWER_SECONDS = 5.0  # of a holder that lives
LOOK_SECONDS = 1.0
IN_FLIGHT = 32  # what the socket surely holds
NO_HOLDER = errno.ETIMEDOUT


class _Question:
    __slots__ = ("message", "node", "then")

    def __init__(self, node: int, message: dict[str, object], then: Then) -> None:
        self.node, self.message, self.then = node, message, then


class Backing:
    """Asks from any thread; `then(node, backing id, errno)` is called on the line's thread."""

    def __init__(
        self,
        root: str,
        mount_id: str,
        lane: int,
        grace_seconds: float,
        report: Callable[[str], None],
    ) -> None:
        self._root = root
        self._serve = {"op": "serve", "id": mount_id, "lane": lane}
        self._grace_seconds = grace_seconds
        self._report = report
        self._said = ""
        self._waiting: deque[_Question] = deque()  # the first `_sent` of them are asked
        self._sent = 0  # the thread's
        self._lost = time.monotonic()  # the thread's: when a holder was last there
        self._doorbell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def start(self) -> None:
        """Start the thread; a daemon, it ends with the process."""
        threading.Thread(target=self._run, name="holder line", daemon=True).start()

    def register(self, node: int, path: str, then: Then) -> None:
        """Have the kernel read `path` (below the Dataset's directory) for `node`."""
        self._ask(node, {"op": "backing", "node": node, "path": path}, then)

    def close(self, node: int, then: Then) -> None:
        """Have the kernel let go of the file of `node`, which nobody has open."""
        self._ask(node, {"op": "close", "node": node}, then)

    def tell_mode(self, mode: str, why: str) -> None:
        """The mount is served otherwise than it was published."""
        self._ask(0, {"op": "mode", "mode": mode, "why": why}, lambda *_: None)

    def _ask(self, node: int, message: dict[str, object], then: Then) -> None:
        self._waiting.append(_Question(node, message, then))
        os.eventfd_write(self._doorbell, 1)

    def _run(self) -> None:
        from cache_worker.holder import messages  # not before the first requests are answered

        while True:
            try:
                with messages.connect(self._root) as connection:
                    connection.settimeout(ANSWER_SECONDS)
                    messages.send(connection, self._serve)
                    _take(messages.receive(connection))
                    self._say("the holder is there")
                    self._converse(connection)
            except (OSError, CacheopError) as error:
                self._say(f"waiting for the holder: {error}")
            self._expire()
            time.sleep(RETRY_SECONDS)

    def _converse(self, connection: socket.socket) -> None:
        from cache_worker.holder import messages

        self._sent = 0
        poll = select.poll()
        poll.register(self._doorbell, select.POLLIN)
        poll.register(connection, select.POLLIN)
        self._lost = time.monotonic()
        while True:
            if not self._sent:
                self._lost = time.monotonic()
            while self._sent < min(len(self._waiting), IN_FLIGHT):
                messages.send(connection, self._waiting[self._sent].message)
                self._sent += 1
            ready = dict(poll.poll(LOOK_SECONDS * 1000))
            if self._doorbell in ready:
                os.eventfd_read(self._doorbell)
            if connection.fileno() in ready:
                answer = _take(messages.receive(connection))
                if answer.get("node", 0) != self._waiting[0].node:
                    raise ProtocolError(f"the holder answers what was not asked: {answer}")
                question = self._waiting.popleft()
                self._sent -= 1
                code = int(str(answer.get("errno", 0)))
                self._lost = time.monotonic()
                question.then(question.node, int(str(answer.get("backing", 0))), code)
            elif self._sent and time.monotonic() - self._lost > self._grace_seconds:
                raise TimeoutError(errno.ETIMEDOUT, "the holder does not answer")

    def _expire(self) -> None:
        """After the grace time without a holder whoever waits is told so."""
        if time.monotonic() - self._lost <= self._grace_seconds:
            return
        for _ in range(len(self._waiting)):
            question = self._waiting.popleft()
            if question.message["op"] == "mode":
                self._waiting.append(question)
            else:
                question.then(question.node, 0, NO_HOLDER)

    def _say(self, line: str) -> None:
        """Report a change once, not every retry."""
        if line != self._said:
            self._said = line
            self._report(line)


def _take(received: tuple[dict[str, object], list[int]] | None) -> dict[str, object]:
    """An answer. Raises OSError when the holder left, ProtocolError when it refused to serve us."""
    if received is None:
        raise ConnectionResetError(errno.ECONNRESET, "the holder closed the connection")
    answer, fds = received
    for fd in fds:
        os.close(fd)
    if "node" not in answer and answer.get("ok") is not True:
        raise ProtocolError(f"the holder refuses: {answer.get('message', answer)}")
    return answer
