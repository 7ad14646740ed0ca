"""Ends a worker whose loop does not turn any more, so that its supervisor starts another.

Readers wait for a worker that is away, and get their bytes from the next one; for one that is there
and does nothing they would wait for good. Where it stood is in the log.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

LOOK_SECONDS = 5.0
PATIENCE_SECONDS = 30
EXIT_STUCK = 70


@contextmanager
def watched(
    loop: asyncio.AbstractEventLoop,
    look_seconds: float = LOOK_SECONDS,
    patience_seconds: int = PATIENCE_SECONDS,
) -> Iterator[None]:
    """Watch `loop` from a thread, which ends with the block."""
    over = threading.Event()
    thread = threading.Thread(
        target=_watch, args=(loop, over, look_seconds, patience_seconds), name="watchdog"
    )
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _watch(
    loop: asyncio.AbstractEventLoop,
    over: threading.Event,
    look_seconds: float,
    patience_seconds: int,
) -> None:
    while not over.wait(look_seconds):
        turned = threading.Event()
        loop.call_soon_threadsafe(turned.set)
        # By seconds that we ran ourselves: a process that was paused as a whole is not stuck.
        if not any(turned.wait(1.0) or over.is_set() for _ in range(patience_seconds)):
            with contextlib.suppress(OSError):  # a log on a failing disk
                sys.stderr.write(f"the worker's loop stands still for {patience_seconds} s:\n")
                faulthandler.dump_traceback()
            os._exit(EXIT_STUCK)
