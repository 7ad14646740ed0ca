"""A FUSE connection that enforces the kernel's rules of passthrough, the ring's promises, a holder
and a store; the process that serves it is killed at any moment.
"""

from __future__ import annotations

import errno
import struct
from collections import deque

from cache_worker.mounts import kernel, passthrough
from cache_worker.mounts.channel import LANDING, Request
from cache_worker.mounts.openslots import OpenSlots
from cacheop.api.chunk import CHUNK_BYTES

FILES = 4  # the last of them has two chunks
NODES = FILES + 2
SLOTS = 64
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
        raise AssertionError("it never comes to rest")
