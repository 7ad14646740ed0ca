"""Mode Passthrough: OPEN decides, then the kernel reads the cached file by itself (Linux 6.9).

The kernel's rules, each tried: an inode that is open in one I/O mode, or with one backing id,
answers EIO to an OPEN in another. So an open inode gets the same answer again, and mode or id
change only while nobody has it open. A backing id that was proved to be of the complete file stays
right: such a file never changes until it is unlinked, and its inode keeps its bytes then. The proof
is written into the ring before the id is used and taken out before the id is closed, so that a
successor knows which ids it may use; others it closes and asks for again.

An OPEN that cannot be answered at once is parked: the holder is asked for an id, or the worker for
the file before. Each node has one such question at a time, and all its OPENs wait for that.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from itertools import islice
from typing import TYPE_CHECKING, Any

from cache_worker.mounts import kernel
from cache_worker.mounts.backing import NO_HOLDER, Backing
from cache_worker.mounts.channel import LANDING, Request
from cache_worker.mounts.line import Read
from cache_worker.mounts.openslots import OpenSlots
from cacheop.api import names
from cacheop.api.chunk import chunk_count

if TYPE_CHECKING:
    from collections.abc import Callable

    from cache_worker.mounts.channel import Channel
    from cache_worker.mounts.line import Line
    from cache_worker.mounts.ring import Lane
    from cache_worker.mounts.stored import StoredVersion

IDS_MAX = 65_536
"""Files that the kernel keeps open for us: each is about 1 KiB of its memory."""
TRIES_MAX = 16  # a file that is evicted as soon as it was filled is read through us then
SCANNED_ROWS, CHECKED_IDS = 32_768, 4096  # a tick; a check takes 2 us from who serves

_PAGES = 1  # in place of a proof, which is never 1: the kernel may have pages that came from us
_PASS = kernel.FOPEN_PASSTHROUGH | kernel.FOPEN_NOFLUSH
_KEEP = kernel.FOPEN_KEEP_CACHE | kernel.FOPEN_NOFLUSH


class _Node:
    """How a node is open, or can be at once."""

    __slots__ = ("backing", "count", "used")

    def __init__(self, backing: int) -> None:
        self.backing = backing
        """The proved id; 0: read through us, until nobody has it open."""
        self.count = 0
        """How often it is open."""
        self.used = 0
        """The tick before the latest open."""


class _Asked:
    """A node whose OPENs wait."""

    __slots__ = ("proof", "requests", "tries")

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.tries = 0
        self.proof: int | None = None
        """Of the file before the holder was asked."""


class PassthroughOpens:
    """Of the one process that serves the mount. Any thread; `_lock` guards all that is mutable."""

    wanted = kernel.PASSTHROUGH
    ids_max, checked_ids = IDS_MAX, CHECKED_IDS
    keeps = False  # a file read through us is soon complete, and then its own pages are read

    def __init__(
        self,
        channel: Channel,
        line: Line,
        stored: StoredVersion,
        backing: Backing,
        slots: OpenSlots,
        ids: memoryview,
        proofs: memoryview,
    ) -> None:
        self._channel = channel
        self._line = line
        self._stored = stored
        self._backing = backing
        self._slots = slots
        self._ids = ids
        """What the holder registered, by node; also ids that nobody proved."""
        self._proofs = proofs
        """By node: 0, or the proof of the file that its id is of, or _PAGES."""
        self._lock = threading.Lock()
        self._nodes: dict[int, _Node] = {}
        self._asked: dict[int, _Asked] = {}
        self._closing: set[int] = set()
        self._scanned = 0
        self._ticks = 0
        for node, passed in slots.left():  # before any tick could close what is open
            if node < len(ids):
                self._nodes.setdefault(node, _Node(ids[node] if passed else 0)).count += 1

    def open(self, request: Request, row: int) -> None:
        """See Opens."""
        node = row + 2
        with self._lock:
            found = self._nodes.get(node) or self._proved(node)
            handle = self._take(request, found) if found is not None else None
        if found is not None:
            self._reply(request, found.backing, handle)
        else:
            self._wait(self._channel.park(request), node)

    def _wait(self, request: Request, node: int) -> None:
        with self._lock:
            found = self._nodes.get(node)  # it may have come while the request was parked
            handle = self._take(request, found) if found is not None else None
            # Of a node that is being closed, `_closed` takes the first step.
            first = found is None and node not in self._asked and node not in self._closing
            twin = self._join(node, request) if found is None else None
        if found is not None:
            self._reply(request, found.backing, handle)
        elif twin is not None:
            self._channel.forget(twin)
        elif first:
            self._advance(node)

    def _join(self, node: int, request: Request) -> Request | None:
        """Let `request` wait; the one to forget if it came before. Under the lock."""
        waiting = self._asked.setdefault(node, _Asked()).requests
        for n, other in enumerate(waiting):
            if (other.unique ^ request.unique) & ~kernel.RESENT == 0:
                # Sent again: the kernel takes an answer by its new number only.
                if request.unique & kernel.RESENT and not other.unique & kernel.RESENT:
                    waiting[n] = request
                    return other
                return request
        waiting.append(request)
        return None

    def _proved(self, node: int) -> _Node | None:
        """By a predecessor. Under the lock."""
        backing = self._ids[node] if self._proofs[node] > _PAGES else 0
        return self._nodes.setdefault(node, _Node(backing)) if backing else None

    def release(self, request: Request, row: int) -> None:
        """See Opens."""
        (handle,) = kernel.RELEASE_IN.unpack_from(request.body)
        self._leave(handle, row + 2)
        self._channel.answer(request)

    def drop(self, unique: int) -> bool:
        """See Opens."""
        with self._lock:
            for asked in self._asked.values():
                for request in asked.requests:
                    if request.unique == unique:
                        asked.requests.remove(request)
                        return True
        return False

    def tick(self) -> None:
        """Let go of files that were evicted, of ids that nobody proved, and of ids too many."""
        start = self._scanned
        words = self._ids[start : start + SCANNED_ROWS].tolist()
        of_all = (start + n for n, word in enumerate(words) if word)
        registered = list(islice(of_all, self.checked_ids))
        end = registered[-1] + 1 if len(registered) == self.checked_ids else start + SCANNED_ROWS
        self._scanned = end if end < len(self._ids) else 0
        useless = [node for node in registered if not self._is_current(node)]
        with self._lock:
            self._ticks += 1
            for node in registered:
                self._proved(node)
            if (many := len(self._nodes) - self.ids_max) > 0:
                idle = [(found.used, n) for n, found in self._nodes.items() if not found.count]
                # Some more than that, so that there is not one to sort out at every tick.
                useless += [node for _, node in sorted(idle)[: many + self.ids_max // 8]]
        for node in useless:
            self._close(node)

    def _is_current(self, node: int) -> bool:
        """Whether the id of `node` is of the file that the store has now."""
        return self._proofs[node] == self._stored.proof(node - 2)

    # -- answering --------------------------------------------------------------------------------

    def _take(self, request: Request, found: _Node) -> int | None:
        """A file handle for one more open. Under the lock, before the answer."""
        slots, node, unique = self._slots, request.node, request.unique
        passed = found.backing != 0
        if slots.has_left:
            handle = slots.inherited(node, unique, passed=passed)
            if handle is not None:
                return handle  # counted when we took over
        handle = slots.take(node, unique, passed=passed)
        if handle is not None:
            found.count += 1
            found.used = self._ticks
        elif not found.count and not passed:
            self._nodes.pop(node, None)
        return handle

    def _reply(self, request: Request, backing: int, handle: int | None) -> None:
        if handle is None:
            self._channel.fail(request, errno.ENFILE)
            return
        body = kernel.OPEN_OUT.pack(handle, _PASS if backing else _KEEP, backing)
        if not self._channel.answer(request, body) and not self._slots.is_inherited(handle):
            # Interrupted, or sent again. A predecessor's handle it may be that was answered.
            self._leave(handle, request.node)

    def _leave(self, handle: int, node: int) -> None:
        with self._lock:
            if not self._slots.clear(handle, node):
                return
            found = self._nodes[node]
            found.count -= 1
            if not found.count and not found.backing:
                del self._nodes[node]

    # -- what waits -------------------------------------------------------------------------------

    def _advance(self, node: int) -> None:
        """The next step towards an answer for the OPENs of `node`; nothing else is under way."""
        row = node - 2
        with self._lock:
            asked = self._asked[node]
            asked.tries += 1
            # Before the look at the ids: what is registered later is of the file that it proves.
            asked.proof = self._stored.proof(row)
            if given_up := asked.tries > TRIES_MAX:
                stale = False
            elif stale := bool(self._ids[node]):  # an id that nobody proved, or gone stale
                self._closing.add(node)
        if given_up:
            self._settle(node, 0)
        elif stale:
            self._backing.close(node, self._closed)
        elif asked.proof is not None:
            path = f"{names.data_path(self._stored.index.version)}/{self._stored.index.path(row)}"
            self._backing.register(node, path, self._registered)
        elif chunk_count(self._stored.index.size(row)) == 1:
            nobody = Request(kernel.OPEN, 0, node, b"", LANDING)  # never dropped by a signal
            self._line.ask(Read(nobody, row, 0, 1, self._filled))
        else:
            self._settle(node, 0)

    def _filled(self, read: Read, payload: bytes | None, errno_code: int) -> None:
        """On the line's thread. What cannot be stored now is read through us."""
        if payload is None and not errno_code:
            self._advance(read.row + 2)
        else:
            self._settle(read.row + 2, 0)

    def _registered(self, node: int, backing: int, errno_code: int) -> None:
        """On the thread of the holder's line."""
        proof = self._asked[node].proof
        if backing and self._stored.proof(node - 2) == proof:
            self._settle(node, backing)
        elif backing or errno_code == errno.ENOENT:  # evicted meanwhile
            self._advance(node)
        elif errno_code == NO_HOLDER:
            self._refuse(node, errno.EIO)
        else:  # the kernel does not take this file system
            self._settle(node, 0)

    def _closed(self, node: int, _backing: int, errno_code: int) -> None:
        """On the thread of the holder's line."""
        with self._lock:
            self._closing.discard(node)
            waited = node in self._asked
        if waited and errno_code == NO_HOLDER:
            self._refuse(node, errno.EIO)
        elif waited:
            self._advance(node)

    def _settle(self, node: int, backing: int) -> None:
        """Answer all that wait for `node`."""
        if backing and self._proofs[node] == _PAGES:
            self._forget_pages(node)  # nobody has it open: the file is to be in memory once
        with self._lock:
            asked = self._asked.pop(node)
            waiting = asked.requests
            if backing and asked.proof:
                self._proofs[node] = asked.proof
            else:
                self._proofs[node] = _PAGES
            if not waiting and not backing:
                return
            found = self._nodes[node] = _Node(backing)
            handles = [self._take(request, found) for request in waiting]
        for request, handle in zip(waiting, handles, strict=True):
            self._reply(request, backing, handle)

    def _refuse(self, node: int, errno_code: int) -> None:
        with self._lock:
            waiting = self._asked.pop(node).requests
        for request in waiting:
            self._channel.fail(request, errno_code)

    def _forget_pages(self, node: int) -> None:
        # Refused, they take memory and are right.
        with contextlib.suppress(OSError):
            os.write(self._channel.fd, kernel.forget_pages(node))

    def _close(self, node: int) -> None:
        """Let the kernel let go of the file of `node`, unless somebody has it open or wants to."""
        with self._lock:
            found = self._nodes.get(node)
            if (found and found.count) or node in self._asked or node in self._closing:
                return
            self._nodes.pop(node, None)
            if self._proofs[node] != _PAGES:
                self._proofs[node] = 0
            self._closing.add(node)
        self._backing.close(node, self._closed)


def start(
    root: str,
    mount: dict[str, Any],
    lane: Lane,
    channel: Channel,
    line: Line,
    stored: StoredVersion,
    ids_fd: int,
    report: Callable[[str], None],
    *,
    offered: bool,
) -> PassthroughOpens | None:
    """Begin; None when the kernel does not offer passthrough, which the holder is told."""
    backing = Backing(root, str(mount["id"]), lane.number, float(mount["grace_seconds"]), report)
    backing.start()
    if not offered:
        backing.tell_mode("Fuse", "the kernel offers no passthrough (Linux 6.9 and later do)")
        return None
    nodes = stored.index.rows + 2
    proofs = lane.ring.proofs
    if nodes > len(proofs):  # a successor asks again for all that is not open
        proofs = memoryview(bytearray(nodes))
    slots = OpenSlots(lane.ring.slots)
    return PassthroughOpens(
        channel, line, stored, backing, slots, _map_ids(ids_fd, nodes), proofs[:nodes]
    )


def _map_ids(fd: int, nodes: int) -> memoryview:
    import mmap

    return memoryview(mmap.mmap(fd, 4 * nodes, access=mmap.ACCESS_READ)).cast("I")
