"""What a mount's processes must not lose when they are killed: a memfd that outlives them.

Its fd is held by holder, supervisor and mount processes. Layout, all little-endian:

    0        the answer to INIT: set, minor, readahead, flags (u64 each; `set` is written last)
    4096     LANES_MAX lanes, one for each mount process:
             landing slot (8192 bytes), counters (u64 for each opcode; the last counts starts),
             PARKED entries of 128 bytes
    9 MiB    proofs of backing ids, a byte for each node (passthrough.py)
    15 MiB   open slots (openslots.py)

No request is lost and none is answered wrongly, wherever the process is killed:
- A request is *in the landing slot*, *parked*, *answered*, or still the kernel's. An entry counts
  when its unique id is not 0; an id is one aligned store of 8 bytes, never seen half written.
- Before each read the landing slot's id is set to 0: only then may its request be overwritten, and
  it was answered, parked, or wants no answer. The kernel writes the slot whole or not at all, as
  its pages are there and locked (else it would meet a page fault in a dying process).
- Parking writes the id to 0, the body, and the id last. Killed before: the landing slot still has
  the request. Killed after: both have it.
- An entry is freed (id = 0) after the reply. Killed between: it is answered twice.
- Whatever is answered twice gets ENOENT the second time, as the kernel never uses an id again:
  `Channel.answer` says False and whoever gave a file handle takes it back. All we answer is a
  function of an immutable version, so the first answer was as right as the second.
- A successor dispatches the parked entries, then the landing slot, as if they had just come. It
  holds the lane's lock, so no other process has the lane. The first lane also takes what is left
  in lanes that nobody holds. Then, where the kernel can, it asks for all requests in hand again
  (NOTIFY_RESEND): later, as a RELEASE must not come twice around another OPEN.
"""

from __future__ import annotations

import fcntl
import mmap
from typing import TYPE_CHECKING, Final

from cache_worker.mounts import kernel
from cache_worker.mounts.kernel import Init
from cacheop.api.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

RING_BYTES: Final = 16 << 20
PROOFS_OFFSET: Final = 9 << 20
SLOTS_OFFSET: Final = 15 << 20
LANES_MAX: Final = 64
PARKED: Final = 1024
ENTRY_BYTES: Final = 128
LANDING_BYTES: Final = kernel.REQUEST_MAX_BYTES
COUNTERS: Final = 512
_PAGE_BYTES = mmap.PAGESIZE
_STARTS = COUNTERS - 1
_LANES_OFFSET = 4096
_COUNTERS_OFFSET = LANDING_BYTES
_PARKED_OFFSET = _COUNTERS_OFFSET + 8 * COUNTERS
LANE_BYTES: Final = _PARKED_OFFSET + PARKED * ENTRY_BYTES
_ENTRY_WORDS = ENTRY_BYTES // 8
_ID_WORD = kernel.UNIQUE_OFFSET // 8
_BUSY_WORD = _ENTRY_WORDS - 1  # no request that is parked is so long
_MAP_LOCKED, _MAP_POPULATE = 0x2000, 0x8000  # not in the mmap module


class Ring:
    """The whole memfd, mapped, for the life of the process.

    The lanes' locks are a process's: to close `fd`, or a mapping (it has a dup), gives them up.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        try:
            self._map = mmap.mmap(fd, RING_BYTES)
        except (OSError, ValueError) as error:
            raise StoreError(f"cannot map the mount's ring (fd {fd}): {error}") from error
        self.view = memoryview(self._map)
        self._init = self.view[:32].cast("Q")

    @property
    def agreed(self) -> Init | None:
        """What was agreed with the kernel; None before INIT was answered."""
        done, minor, readahead_bytes, flags = self._init
        return Init(minor, readahead_bytes, flags) if done else None

    def agree(self, agreed: Init) -> None:
        """Note what is about to be answered to INIT."""
        self._init[1], self._init[2], self._init[3] = agreed
        self._init[0] = 1

    @property
    def slots(self) -> memoryview:
        """The part for open slots."""
        return self.view[SLOTS_OFFSET:]

    @property
    def proofs(self) -> memoryview:
        """The part for proofs of backing ids."""
        return self.view[PROOFS_OFFSET:SLOTS_OFFSET]

    def requests(self) -> dict[str, int]:
        """How many requests of each kind this mount has had, in all lanes."""
        totals = [0] * _STARTS
        for number in range(LANES_MAX):
            counters = self.counters(number)
            if counters[_STARTS]:
                totals = [a + b for a, b in zip(totals, counters[:_STARTS], strict=True)]
        return {
            kernel.OP_NAMES.get(op, f"OP{op}"): count for op, count in enumerate(totals) if count
        }

    def counters(self, number: int) -> memoryview:
        """The counters of lane `number`."""
        at = _lane_offset(number) + _COUNTERS_OFFSET
        return self.view[at : at + 8 * COUNTERS].cast("Q")

    def entries(self, number: int) -> memoryview:
        """The parked entries of lane `number`, as words."""
        at = _lane_offset(number) + _PARKED_OFFSET
        return self.view[at : at + PARKED * ENTRY_BYTES].cast("Q")

    def waits_elsewhere(self, unique: int, here: int) -> bool:
        """Whether a lane other than `here` has parked the request `unique`, for long perhaps."""
        for number in self._others(here):
            entries = self.entries(number)
            for at in range(0, len(entries), _ENTRY_WORDS):
                if entries[at + _ID_WORD] == unique:
                    return not entries[at + _BUSY_WORD]
        return False

    def just_came(self, unique: int, here: int) -> bool:
        """Whether the request `unique` is in the landing slot of a lane other than `here`."""
        at = [_lane_offset(number) + kernel.UNIQUE_OFFSET for number in self._others(here)]
        return any(self.view[start : start + 8].cast("Q")[0] == unique for start in at)

    def _others(self, here: int) -> list[int]:
        return [n for n in range(LANES_MAX) if n != here and self.counters(n)[_STARTS]]


class Lane:
    """One mount process's part of the ring; it is the only one who writes there."""

    def __init__(self, ring: Ring, number: int) -> None:
        if not 0 <= number < LANES_MAX:
            raise StoreError(f"a mount has lanes 0 to {LANES_MAX - 1}, not {number}")
        self.ring, self.number = ring, number
        self.landing = _map_landing(ring.fd, _lane_offset(number))
        # Waits while a predecessor is still dying. After the mapping, which may be tried twice.
        fcntl.lockf(ring.fd, fcntl.LOCK_EX, 1, number)
        self.landing_ids = self.landing.cast("Q")
        """landing_ids[ID_WORD] is the unique id of the request in hand."""
        at = _lane_offset(number) + _PARKED_OFFSET
        self._parked = ring.view[at : at + PARKED * ENTRY_BYTES]
        self._words = ring.entries(number)
        self.counters = ring.counters(number)
        self.had_predecessor = self.counters[_STARTS] > 0
        self.counters[_STARTS] += 1

    def store(self, place: int, request: bytes, unique: int) -> memoryview:
        """Put a whole request (header and body) into entry `place`; its body there."""
        at, word = place * ENTRY_BYTES, place * _ENTRY_WORDS
        entry = self._parked[at : at + ENTRY_BYTES]
        self._words[word + _ID_WORD] = 0
        self._words[word + _BUSY_WORD] = 0
        entry[: _ID_WORD * 8] = request[: _ID_WORD * 8]
        after = _ID_WORD * 8 + 8
        entry[after : len(request)] = request[after:]
        self._words[word + _ID_WORD] = unique
        return entry[kernel.IN_HEADER.size : len(request)]

    def free(self, place: int) -> None:
        """Forget the request in entry `place`: it was answered."""
        self._words[place * _ENTRY_WORDS + _ID_WORD] = 0

    def set_busy(self, place: int, *, busy: bool) -> None:
        """Whether the request in `place` is about to be answered: no signal need end it."""
        self._words[place * _ENTRY_WORDS + _BUSY_WORD] = busy

    def place_of(self, unique: int) -> int | None:
        """The entry that holds the request `unique`."""
        words = self._words
        places = (n for n in range(PARKED) if words[n * _ENTRY_WORDS + _ID_WORD] == unique)
        return next(places, None)

    def taken(self) -> list[int]:
        """Entries that hold a request."""
        words = self._words
        return [n for n in range(PARKED) if words[n * _ENTRY_WORDS + _ID_WORD]]

    def parked(self, place: int) -> memoryview:
        """The whole request in entry `place`."""
        return whole(self._parked[place * ENTRY_BYTES : (place + 1) * ENTRY_BYTES])

    def left_by_others(self) -> Iterator[bytes]:
        """Requests in lanes that nobody holds. Each is forgotten there when the next is asked for.

        For the first lane, before it serves: there may be fewer processes than there were.
        """
        ring = self.ring
        for number in range(LANES_MAX):
            if number == self.number or not ring.counters(number)[_STARTS]:
                continue
            try:
                fcntl.lockf(ring.fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
            except OSError:
                continue  # it has its process
            try:
                yield from _empty(ring, number)
            finally:
                fcntl.lockf(ring.fd, fcntl.LOCK_UN, 1, number)


def whole(request: memoryview) -> memoryview:
    """The request at the start of `request`, as long as its header says."""
    return request[: max(kernel.IN_HEADER.size, kernel.SIZE_IN.unpack_from(request)[0])]


def _empty(ring: Ring, number: int) -> Iterator[bytes]:
    start = _lane_offset(number)
    first = start + _PARKED_OFFSET
    places = range(first, first + PARKED * ENTRY_BYTES, ENTRY_BYTES)
    for at, size in [*((at, ENTRY_BYTES) for at in places), (start, LANDING_BYTES)]:
        entry = ring.view[at : at + size]
        ids = entry.cast("Q")
        if ids[_ID_WORD]:
            yield bytes(whole(entry))
            ids[_ID_WORD] = 0


def _lane_offset(number: int) -> int:
    return _LANES_OFFSET + number * LANE_BYTES


def _map_landing(fd: int, offset: int) -> memoryview:
    flags = mmap.MAP_SHARED | _MAP_POPULATE
    try:
        return memoryview(mmap.mmap(fd, LANDING_BYTES, flags | _MAP_LOCKED, offset=offset))
    except OSError:  # no more memory may be locked (RLIMIT_MEMLOCK)
        return memoryview(mmap.mmap(fd, LANDING_BYTES, flags, offset=offset))
