"""The writer's side of the chunk table: one process, one loop, so no locks inside.

Every change of a chunk's state goes through here, and through the step table of states.py.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import mmap
import os
import struct
import threading
import time
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING

from cache_worker import states
from cacheop.api.errors import StoreError, UserError
from cacheop.api.names import CHUNK_TABLE
from cacheop.api.table import (
    CAPACITY,
    COLUMNS,
    COMPLETE,
    FILE_BYTES,
    HEADER,
    HEADER_BYTES,
    INCOMPLETE,
    MAGIC,
    PRESENT,
    STATE_MASK,
    WIDTH,
    columns,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cache_worker.disk import Disk

log = logging.getLogger(__name__)

SYNC_SECONDS = 5.0
FORMER_SECONDS = 15.0
"""A worker that ends has 8 s for what is open, and SYNC_SECONDS for the table."""
FORMER = 2
"""File state: was complete, so readers may hold it; to be unlinked, never punched. So are files
after an unclean stop, and one that is being dropped until it is unlinked."""

# The writer's own header fields, behind cacheop.api.table.HEADER: how it stopped, slots ever used,
# the boot it ran in (first 16 bytes of /proc/sys/kernel/random/boot_id as text).
_OWN = struct.Struct("<QQ16s")
UNCLEAN, CLEAN, SYNCED = 0, 1, 2
"""CLEAN: good while the page cache lives, so until the next boot; SYNCED: on the device too."""
_OWN_AT = HEADER.size


def boot_id() -> bytes:
    """Names this boot of the machine; see random(4)."""
    return Path("/proc/sys/kernel/random/boot_id").read_bytes()[:16]


def _page_end(offset: int) -> int:
    return -(-offset // mmap.PAGESIZE) * mmap.PAGESIZE


def await_former(root: Path) -> None:
    """Return once no other worker has the table, or after FORMER_SECONDS.

    When a supervisor is killed its worker still closes its store while the next one starts ours.
    """
    with contextlib.suppress(FileNotFoundError), (root / CHUNK_TABLE).open("rb") as table:
        deadline = time.monotonic() + FORMER_SECONDS
        while time.monotonic() < deadline:
            try:
                fcntl.flock(table, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.02)
            else:
                return


class TableFile:
    """Owns the fd, the lock and the mapping of `chunks`; closed by `close`."""

    def __init__(self, root: Path, disk: Disk) -> None:
        self._disk = disk
        self._fd = disk.open("TABLE:OPEN", str(root / CHUNK_TABLE), os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._fd)
            raise UserError(
                f"another worker runs on the cache directory {root}",
                hint="Stop it first (`cacheop down`), or use another --cache",
            ) from error
        if os.fstat(self._fd).st_size == 0:
            disk.set_size("TABLE:SIZE", self._fd, FILE_BYTES)
            os.pwrite(self._fd, HEADER.pack(MAGIC, CAPACITY) + _OWN.pack(SYNCED, 0, b""), 0)
        if os.fstat(self._fd).st_size < FILE_BYTES:
            os.close(self._fd)
            raise StoreError(f"{root / CHUNK_TABLE} is cut short", hint="Delete it to start empty")
        self._map = mmap.mmap(self._fd, FILE_BYTES)
        self._view = memoryview(self._map)
        found = columns(self._view)
        self._state, self._file = found["state"], found["file"]
        self._checksum, self._length = found["checksum"], found["length"]
        self._accessed, self._reads = found["accessed"], found["reads"]
        stop, self.used_slots, boot = _OWN.unpack_from(self._view, _OWN_AT)
        self.was_clean = stop == SYNCED or (stop == CLEAN and boot == boot_id())
        if not self.was_clean:
            self._distrust()
        self._write_own(UNCLEAN)

    def _distrust(self) -> None:
        """Unclean stop: nothing is known good any more, only believed."""
        n = self.used_slots
        self._state[:n] = bytes(self._state[:n]).translate(states.AFTER_UNCLEAN_STOP)
        former = bytes.maketrans(bytes([COMPLETE]), bytes([FORMER]))
        self._file[:n] = bytes(self._file[:n]).translate(former)

    def _write_own(self, stop: int) -> None:
        _OWN.pack_into(self._view, _OWN_AT, stop, self.used_slots, boot_id())

    def close(self, *, clean: bool) -> None:
        """Unmap and unlock. `clean` promises that no fill is half done.

        Gigabytes may wait for a slow disk, so the flush has a deadline; without it the chunks are
        verified after the next boot.
        """
        if clean:
            self._write_own(CLEAN)
            if self._flush():
                self._write_own(SYNCED)
                self._map.flush(0, mmap.PAGESIZE)
        for view in (
            self._state,
            self._file,
            self._checksum,
            self._length,
            self._accessed,
            self._reads,
            self._view,
        ):
            view.release()
        self._map.close()
        os.close(self._fd)

    def _flush(self) -> bool:
        """Whether everything was on its device within SYNC_SECONDS. The thread ends with us."""
        done = threading.Event()

        def flush() -> None:
            try:
                self._disk.sync("TABLE:SYNC", self._fd)
                done.set()
            except OSError as error:
                log.warning("cannot flush the cache to its disk: %s", error)

        thread = threading.Thread(target=flush, daemon=True)
        thread.start()
        thread.join(SYNC_SECONDS)
        return done.is_set()

    def use_slots(self, end: int) -> None:
        """Slots below `end` may be used from now on. StoreError if the disk has no room for them.

        Their blocks are allocated here: a page of a sparse mapping that finds no block when the
        disk is full would be a SIGBUS (mmap(2)).
        """
        if end <= self.used_slots:
            return
        offset = HEADER_BYTES
        try:
            for _, code in COLUMNS:
                # Whole pages: a fault needs every block of its page, and blocks may be smaller.
                first, stop = _page_end(self.used_slots * WIDTH[code]), _page_end(end * WIDTH[code])
                self._disk.allocate("TABLE:ALLOCATE", self._fd, offset + first, stop - first)
                offset += CAPACITY * WIDTH[code]
        except OSError as error:
            raise StoreError(
                f"no room for the chunk table of {end} chunks: {error.strerror}",
                hint="Free some space in the cache directory",
            ) from error
        self.used_slots = end
        self._write_own(UNCLEAN)

    # -- what is known ----------------------------------------------------------------------------

    def state(self, slot: int) -> int:
        """ABSENT, FILLING, PRESENT or SUSPECT."""
        return self._state[slot] & STATE_MASK

    def state_byte(self, slot: int) -> int:
        """State and generation."""
        return self._state[slot]

    def states(self, first: int, count: int) -> bytes:
        """The states (without generation) of `count` slots."""
        return bytes(self._state[first : first + count]).translate(states.STATE_ONLY)

    def state_bytes(self, first: int, count: int) -> bytes:
        """State and generation of `count` slots: the same again means nothing was dropped."""
        return bytes(self._state[first : first + count])

    def file_state(self, first: int) -> int:
        """INCOMPLETE, COMPLETE or FORMER."""
        return self._file[first]

    def checksum(self, slot: int) -> int:
        """xxh3-64 recorded at the fill."""
        return self._checksum[slot]

    def length(self, slot: int) -> int:
        """Bytes of the chunk."""
        return self._length[slot]

    def lengths(self, slots: Sequence[int]) -> list[int]:
        """Bytes of each chunk."""
        return list(map(self._length.__getitem__, slots))

    def cached_bytes(self, first: int, count: int) -> int:
        """Bytes of the PRESENT and SUSPECT chunks among `count` slots."""
        here = bytes(self._state[first : first + count]).translate(states.HOLDS_BYTES)
        return sum(compress(self._length[first : first + count], here))

    def last_use(self, first: int) -> tuple[int, int]:
        """(seconds since the epoch of the last known use, known reads) of a file."""
        return self._accessed[first], self._reads[first]

    def by_last_use(self) -> list[int]:
        """The slots that hold bytes, those of the longest unused files first."""
        states_now = bytes(self._state[: self.used_slots]).translate(states.HOLDS_BYTES)
        here = list(compress(range(self.used_slots), states_now))
        return sorted(here, key=self._accessed.__getitem__)

    # -- what changes -----------------------------------------------------------------------------

    def step(self, slot: int, name: str) -> None:
        """One legal step of a chunk."""
        self._state[slot] = states.step(self._state[slot], name)

    def expect(self, slot: int, length_bytes: int) -> None:
        """How long the chunk will be that is about to come."""
        self._length[slot] = length_bytes

    def record(self, slot: int, checksum: int, length_bytes: int) -> None:
        """What the chunk's bytes must be; written before the flag that says they are there."""
        self._checksum[slot] = checksum
        self._length[slot] = length_bytes

    def complete_if_whole(self, first: int, count: int) -> bool:
        """Set the file's COMPLETE flag if every chunk is PRESENT; whether it is complete now."""
        if count > 1 and self.states(first, count).count(PRESENT) != count:
            return False
        if count == 1 and self.state(first) != PRESENT:
            return False
        self._file[first] = COMPLETE
        return True

    def incomplete(self, first: int) -> None:
        """The file is not complete any more; set before any of its bytes go."""
        self._file[first] = INCOMPLETE

    def former(self, first: int) -> None:
        """The file is not to be taken for complete any more, but somebody may hold it."""
        self._file[first] = FORMER

    def used(self, first: int, now: int, times: int) -> None:
        """A file was read `times` times, last at `now`."""
        self._accessed[first] = now
        self._reads[first] = min(self._reads[first] + times, 0xFFFFFFFF)

    def forget(self, first: int, count: int) -> int:
        """Slots that no version uses any more: drop what they hold. The bytes that went."""
        gone = self.cached_bytes(first, count)
        kept = bytes(self._state[first : first + count])
        self._state[first : first + count] = kept.translate(states.AFTER_FORGET)
        self._file[first : first + count] = bytes(count)
        return gone
