"""Memory for what arrives, used again once nobody holds it.

New memory costs more than all else in a transfer: each of its pages is a fault and is zeroed (twice
the time of a fetch of 8 MiB, docs/decisions/peers.md).
"""

from __future__ import annotations

import threading
import time
from collections import deque

SMALLEST_BYTES = 64 << 10
LOOKS = 4
"""How many are looked at before a new one is made."""


class Buffers:
    """Shared by threads. Who drops all views of a buffer, and slices of them, has given it back."""

    def __init__(self, keep_bytes: int) -> None:
        """At most `keep_bytes` are kept, in use or not; what is needed beyond is made each time."""
        self._keep_bytes = keep_bytes
        self._kept_bytes = 0
        self._kept: dict[int, deque[tuple[bytearray, float]]] = {}
        """By size: buffers with when they were last given out, the oldest first."""
        self._lock = threading.Lock()

    def take(self, length: int) -> memoryview:
        """So many writable bytes, with anything in them."""
        if length < SMALLEST_BYTES:
            return memoryview(bytearray(length))
        size = 1 << (length - 1).bit_length()
        with self._lock:
            kept = self._kept.setdefault(size, deque())
            for _ in range(min(LOOKS, len(kept))):
                buffer, _last = kept.popleft()
                kept.append((buffer, time.monotonic()))
                if _is_free(buffer):
                    return memoryview(buffer)[:length]
            buffer = bytearray(size)
            if self._kept_bytes + size <= self._keep_bytes:
                self._kept_bytes += size
                kept.append((buffer, time.monotonic()))
        return memoryview(buffer)[:length]

    def trim(self, idle_seconds: float) -> None:
        """Forget what was not given out for so long; who still holds some keeps it."""
        before = time.monotonic() - idle_seconds
        with self._lock:
            for size, kept in self._kept.items():
                while kept and kept[0][1] <= before:
                    kept.popleft()
                    self._kept_bytes -= size


def _is_free(buffer: bytearray) -> bool:
    """Whether no view of it is left: Python lets its size change only then. It stays as it was."""
    try:
        buffer.append(buffer.pop())
    except BufferError:
        return False
    return True
