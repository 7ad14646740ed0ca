"""The FUSE fd: takes requests in, puts answers out, and keeps in the ring what is in hand."""

from __future__ import annotations

import errno
import os
import select
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final, NamedTuple

from cache_worker.mounts import kernel
from cache_worker.mounts.ring import PARKED, whole

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cache_worker.mounts.ring import Lane

LANDING: Final = -1
"""Place of a request that was not parked: gone at the next `receive`."""
_GONE = frozenset({errno.ENODEV, errno.ECONNABORTED})
_AGAIN = frozenset({errno.ENOENT, errno.EINTR, errno.EAGAIN})
_HEADER_BYTES = kernel.IN_HEADER.size
_ANSWER_HEADER_BYTES = kernel.OUT_HEADER.size
_ID_WORD = kernel.UNIQUE_OFFSET // 8
_COPIED_BYTES = 1024  # cheaper than a write of two parts
_OTHER_OPS = 0  # counter of opcodes that no kernel has today


class Request(NamedTuple):
    """What the kernel asks. A body in the landing slot is valid until the next `receive`."""

    op: int
    unique: int
    node: int
    body: memoryview | bytes
    place: int
    """Its parked entry, or LANDING."""


_new = tuple.__new__  # half the time of `Request(…)`, for each request that comes


class Channel:
    """Of one mount process. `receive` and `park` are the main thread's, answers anybody's."""

    def __init__(self, fd: int, lane: Lane) -> None:
        self.fd = fd
        self._lane = lane
        self._landing = lane.landing
        self._ids = lane.landing_ids
        self._counters = lane.counters
        # A new request reads straight into the ring.
        self._buffers = [self._landing]
        self._bodies = self._landing[_HEADER_BYTES:]
        self._free: SimpleQueue[int] = SimpleQueue()
        self._left: list[int] = lane.taken()
        for place in set(range(PARKED)).difference(self._left):
            self._free.put(place)

    def receive(self) -> Request | None:
        """The next request; None: unmounted."""
        ids, fd, buffers = self._ids, self.fd, self._buffers
        while True:
            ids[_ID_WORD] = 0
            try:
                count = os.readv(fd, buffers)
            except OSError as error:
                if error.errno in _GONE:
                    return None
                if error.errno not in _AGAIN:  # ENOENT: taken back while we were reading
                    raise
                continue
            if count < _HEADER_BYTES:
                continue
            length, op, unique, node = kernel.IN_HEAD.unpack_from(self._landing)
            self._counters[op if op < 64 else _OTHER_OPS] += 1
            if length == count:
                body = self._bodies[: count - _HEADER_BYTES]
                return _new(Request, (op, unique, node, body, LANDING))
            self.fail(Request(op, unique, node, b"", LANDING), errno.EIO)

    def leftovers(self) -> Iterator[Request]:
        """What predecessors had in hand, each as if just received; to be called before `receive`.

        A request must be answered or parked before the next one is taken.
        """
        lane, seen = self._lane, set[int]()
        for place in self._left:
            request = _parse(lane.parked(place), place)
            seen.add(request.unique)
            yield request
        self._left = []
        if lane.number == 0:
            for message in lane.left_by_others():
                request = _parse(memoryview(message), LANDING)
                if request.unique not in seen:
                    yield request
        unique = self._ids[_ID_WORD]
        if unique and unique not in seen:  # else killed as soon as it was parked
            yield _parse(whole(self._landing), LANDING)

    def waits(self, seconds: float) -> bool:
        """Whether a request comes within `seconds`."""
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def park(self, request: Request) -> Request:
        """Keep `request` beyond the next `receive`; waits while all entries are taken."""
        if request.place != LANDING:
            return request
        op, unique, node, body, _ = request
        head = kernel.IN_HEADER.pack(_HEADER_BYTES + len(body), op, unique, node, 0, 0, 0, 0, 0)
        place = self._free.get()
        return Request(op, unique, node, self._lane.store(place, head + body, unique), place)

    def hurry(self, request: Request, *, hurried: bool) -> None:
        """Whether `request` is about to be answered, so that a signal need not end it."""
        if request.place != LANDING:
            self._lane.set_busy(request.place, busy=hurried)

    def answer(self, request: Request, body: bytes | memoryview = b"") -> bool:
        """Send an answer; False: the kernel does not wait for it (any more)."""
        head = kernel.OUT_HEADER.pack(_ANSWER_HEADER_BYTES + len(body), 0, request.unique)
        try:
            if len(body) <= _COPIED_BYTES:
                os.write(self.fd, head + body)
            else:
                os.writev(self.fd, (head, body))
        except OSError as error:
            taken = self._refused(request, error)
        else:
            taken = True
        if request.place != LANDING:
            self._give_back(request.place)
        return taken

    def fail(self, request: Request, errno_code: int) -> bool:
        """Send an errno; False: the kernel does not wait for it (any more)."""
        taken = self._write(kernel.failure(request.unique, errno_code))
        if request.place != LANDING:
            self._give_back(request.place)
        return taken

    def forget(self, request: Request) -> None:
        """Give up a request that the kernel has sent again, or knows no more."""
        if request.place != LANDING:
            self._give_back(request.place)

    def interrupt(self, unique: int, *, dropped: bool) -> bool:
        """End the request `unique` with EINTR if it waits long, here or in another process.

        `dropped`: it waited here and nobody will answer it but we. In another process, who has it
        finds out when it answers. False: another process has just received it; look again.
        """
        lane = self._lane
        if dropped and (place := lane.place_of(unique)) is not None:
            self.fail(Request(0, unique, 0, b"", place), errno.EINTR)
        elif lane.ring.waits_elsewhere(unique, lane.number):
            self._write(kernel.failure(unique, errno.EINTR))
        elif lane.ring.just_came(unique, lane.number):
            return False
        return True

    def resend(self) -> None:
        """Ask for what was handed out and not answered; a kernel that cannot is not asked."""
        try:
            os.write(self.fd, kernel.resend_notice())
        except OSError as error:
            if error.errno not in {errno.EINVAL, errno.ENODEV, errno.EPERM}:
                raise

    def _give_back(self, place: int) -> None:
        self._lane.free(place)
        self._free.put(place)

    def _refused(self, request: Request, error: OSError) -> bool:
        """After an answer that the kernel did not take."""
        if error.errno == errno.ENOENT or error.errno in _GONE:
            return False  # answered already, or the asker is gone; an unmount shows at `receive`
        # An answer it does not understand; the asker must not wait for ever.
        return self._write(kernel.failure(request.unique, errno.EIO)) and False

    def _write(self, message: bytes) -> bool:
        try:
            os.write(self.fd, message)
        except OSError as error:
            if error.errno not in _GONE and error.errno not in {errno.ENOENT, errno.EINVAL}:
                raise
            return False
        return True


def _parse(message: memoryview, place: int) -> Request:
    _, op, unique, node = kernel.IN_HEAD.unpack_from(message)
    return Request(op, unique, node, message[_HEADER_BYTES:], place)
