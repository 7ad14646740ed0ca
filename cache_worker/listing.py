"""`python -m cache_worker index CONFIG`: list the origins into a new version, then end.

A child of the worker that lives for one listing, so that the worker itself imports no pyarrow and
keeps none of a listing's memory. Standard output is for the worker: JSON lines with progress, and
one last line with the result or the error.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import queue
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self, TextIO

from cache_worker import lean_arrow
from cache_worker.settings import load
from cacheop.api.errors import CacheopError, OriginError, to_wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from cache_worker.manifest import Manifest
    from cache_worker.origins import Listing, Origin
    from cache_worker.settings import Settings
    from cacheop.api.dataset import Mount

    OpenOrigin = Callable[[Mount, Path], Origin]

PROGRESS_SECONDS = 0.5
BATCHES_AHEAD = 8  # what the origins may be ahead of us, to bound the memory
LISTERS_MAX = 8


def main(arguments: Sequence[str]) -> int:
    """Index as CONFIG says; ends the process itself."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m cache_worker index CONFIG\n")
        return 2

    gc.disable()  # a million keys make no cycles; the collector would walk them for nothing
    # Importing what makes a manifest takes longer than an origin's first answer: both at once.
    lean_arrow.import_early()

    def work() -> dict[str, Any]:
        from cache_worker.origins import open_origin

        return run(load(arguments[0]), open_origin, sys.stdout)

    code = report(work, sys.stdout)
    # Not sys.exit: Rust runtimes below an origin may abort while the interpreter is torn down, and
    # nothing of ours is left to do (files are synced, origins closed).
    os._exit(code)


def report(work: Callable[[], object], out: TextIO) -> int:
    """Print what `work` gives, or the error that it raises, as the last line; the exit code."""
    try:
        _tell(out, work())
    except CacheopError as error:
        _tell(out, to_wire(error))
        return error.exit_code
    return 0


def run(settings: Settings, open_origin: OpenOrigin, out: TextIO) -> dict[str, Any]:
    """List, write the version unless it is there, and say what it is. Raises CacheopError."""
    mounts = settings.dataset.spec.mounts
    with contextlib.ExitStack() as stack:
        origins: list[Origin] = []
        for mount in mounts:
            origins.append(open_origin(mount, settings.secrets))
            stack.callback(_close, origins[-1])
        manifest = _list(mounts, origins, out)
    from cache_worker.version_files import current_version, write_version

    current = current_version(settings.root)
    written = write_version(settings.root, manifest)
    return {
        "version": manifest.version,
        "changed": manifest.version != current if current else written,
        "files": manifest.files,
        "bytes": manifest.total_bytes,
        "directories": manifest.directories,
        "skipped": manifest.skipped,
    }


def _close(origin: Origin) -> None:
    import asyncio

    asyncio.run(origin.close())


def _list(mounts: Sequence[Mount], origins: Sequence[Origin], out: TextIO) -> Manifest:
    started = last_told = time.monotonic()
    with _Listers(origins) as listers:
        from cache_worker.manifest import Builder, MountPoint

        builder = Builder([MountPoint(mount.mount_point, mount.path) for mount in mounts])
        for number, listing in listers.batches():
            if listing is not None:
                builder.add(number, listing)
            now = time.monotonic()
            if now - last_told >= PROGRESS_SECONDS:
                _tell(out, {"keys": builder.keys, "seconds": round(now - started, 3)})
                last_told = now
    _tell(out, {"keys": builder.keys, "seconds": round(time.monotonic() - started, 3)})
    return builder.finish()


class _Listers:
    """Threads that list, one per origin and at most LISTERS_MAX at a time, into one queue.

    The threads are this object's: leaving it stops and joins them. An origin bounds its own waiting
    for an answer, so a join lasts at most as long as its timeouts.
    """

    def __init__(self, origins: Sequence[Origin]) -> None:
        self._queue: queue.Queue[tuple[int, Listing | None]] = queue.Queue(BATCHES_AHEAD)
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(min(LISTERS_MAX, len(origins)), "list")
        self._tasks = [
            self._pool.submit(self._pump, number, origin) for number, origin in enumerate(origins)
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)

    def batches(self) -> Iterator[tuple[int, Listing | None]]:
        """(origin's number, batch) as they come; batch None when there was none for a while.

        Raises what an origin's listing raised.
        """
        while True:
            # Looked at before the queue: what an ended task put there is then seen below.
            ended = [task for task in self._tasks if task.done()]
            for task in ended:
                task.result()
            try:
                yield self._queue.get(timeout=0 if len(ended) == len(self._tasks) else 0.1)
            except queue.Empty:
                if len(ended) == len(self._tasks):
                    return
                yield -1, None

    def _pump(self, number: int, origin: Origin) -> None:
        try:
            for listing in origin.list_objects():
                while not self._stop.is_set():
                    with contextlib.suppress(queue.Full):
                        self._queue.put((number, listing), timeout=0.1)
                        break
                if self._stop.is_set():
                    return
        except CacheopError:
            raise
        except OSError as error:
            raise OriginError(f"listing failed: {error}") from error


def _tell(out: TextIO, line: object) -> None:
    out.write(json.dumps(line, separators=(",", ":")) + "\n")
    out.flush()
