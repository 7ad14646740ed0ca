"""^C and SIGTERM, kept away from what must not be left half done."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

WAYS_TO_END = frozenset({signal.SIGINT, signal.SIGTERM})


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Signals that come during the block take effect after it. Threads inherit nothing of it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, WAYS_TO_END)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
