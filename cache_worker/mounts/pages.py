"""One copy in memory: what a mount served lies in the mount's own pages, which the kernel keeps.

The same bytes are in the page cache of the store's file, where nobody will look again. They are
given back: of a file read at once right after the answer, of others about a second later. Pages of
a file that was just filled are not on the disk yet; to drop them would only hurry their writing, so
these wait until the kernel has written them by itself.

Not for Passthrough and Native, where readers use the store's own pages.
"""

from __future__ import annotations

import contextlib
import os
import time
from array import array
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# The kernel writes what is older than 30 s, looking every 5 s (vm.dirty_expire_centisecs).
WRITTEN_SECONDS = 45.0
TICK_FILES = 8192  # a tick, so that the thread that ticks is back soon
QUEUE_FILES = 1 << 16


class StorePages:
    """Gives the store's pages back; `path_of` a row is its file. `served` may come from any thread.

    Best effort: a page that stays is the kernel's to reclaim.
    """

    def __init__(
        self, path_of: Callable[[int], bytes], clock: Callable[[], float] = time.time
    ) -> None:
        self._path_of = path_of
        self._clock = clock
        self._soon: deque[int] = deque(maxlen=QUEUE_FILES)  # at the next tick
        self._young: deque[int] = deque(maxlen=QUEUE_FILES)  # once they are written
        self._waiting: deque[tuple[float, array[int]]] = deque()  # the young of each tick; tick's

    def served(self, row: int, fd: int, *, whole: bool) -> None:
        """Bytes of `row` were answered, `whole`: all at once. `fd` is the file's, or -1."""
        if not whole or fd < 0:
            if not self._soon or self._soon[-1] != row:
                self._soon.append(row)
        elif not self._drop_written(fd):
            self._young.append(row)

    def tick(self) -> None:
        """Give back what could not be given back at once; about once a second."""
        for row in set(_take(self._soon)):
            if not self._drop(row):
                self._young.append(row)
        if young := array("I", set(_take(self._young))):
            self._waiting.append((self._clock() + WRITTEN_SECONDS, young))
        if self._waiting and self._waiting[0][0] <= self._clock():
            for row in self._waiting.popleft()[1]:
                self._drop(row)

    def _drop(self, row: int) -> bool:
        """False: it is too young."""
        try:
            fd = os.open(self._path_of(row), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return True  # evicted, and its pages with it
        try:
            return self._drop_written(fd)
        finally:
            os.close(fd)

    def _drop_written(self, fd: int) -> bool:
        # The ctime: an mtime can be set to anything.
        if self._clock() - os.fstat(fd).st_ctime < WRITTEN_SECONDS:
            return False
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        return True


def _take(rows: deque[int]) -> list[int]:
    """Up to TICK_FILES of the oldest, removed; others may append meanwhile."""
    taken: list[int] = []
    with contextlib.suppress(IndexError):
        while len(taken) < TICK_FILES:
            taken.append(rows.popleft())
    return taken
