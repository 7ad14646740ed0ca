"""The mount process: `python -m cache_worker mount CONFIG --target T --fd N`.

Started by the supervisor, which made the mount and holds the same fd; when this process dies, the
next one goes on with the version and the INIT answer in the record, and asks the kernel for the
requests that were in hand. It exits with 0 when the mount is gone.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cache_worker.mounts import record as records
from cache_worker.mounts.fuse import Channel, FuseMount, refuse_all
from cache_worker.mounts.line import Line, Read
from cache_worker.mounts.record import Record
from cache_worker.mounts.stored import StoredVersion
from cache_worker.mounts.tree import Tree
from cacheop.api import names
from cacheop.api.errors import CacheopError, StoreError, UserError

if TYPE_CHECKING:
    from cache_worker.mounts import Mount
    from cache_worker.mounts.kernel import Init

POLL_SECONDS = 0.2


class Server:
    """Finds the version to show, then serves it for the life of the mount."""

    def __init__(self, root: Path, grace_seconds: float, channel: Channel, record: Path) -> None:
        self._root = root
        self._grace_seconds = grace_seconds
        self._channel = channel
        self._record_path = record
        found = records.load(record)
        self._taken_over = found is not None
        self._record = found or Record("")
        self._stored: StoredVersion | None = None
        self._mount: Mount | None = None
        self._line = Line(
            root / names.WORKER_SOCKET,
            self._record.version,
            grace_seconds=grace_seconds,
            answered=self._answered,
            ticked=self._ticked,
            report=report,
        )

    def run(self) -> None:
        """Serve until the mount is gone."""
        self._line.start()
        if self._taken_over:
            self._channel.resend()
        stored = self._open_version()
        if stored is None:
            return
        self._stored = stored
        tree = Tree(stored.index)
        self._mount = FuseMount(self._channel, tree, stored, self._line, self._agreed_on)
        self._mount.serve()

    def _open_version(self) -> StoredVersion | None:
        """The version of the record if its files are here, else the worker's; None: unmounted.

        Until then requests stay with the kernel, where a killed reader can leave; after the grace
        time they get EIO, and still the version is waited for.
        """
        deadline = time.monotonic() + self._grace_seconds
        said = ""
        while True:
            if self._record.version or self._line.bound.is_set():
                try:
                    version = self._record.version or self._line.version
                    stored = StoredVersion(self._root, version, report)
                    if not self._record.version:
                        self._save(self._record._replace(version=version))
                    return stored
                except StoreError as error:
                    if str(error) != said:
                        said = str(error)
                        report(said)
            late = time.monotonic() > deadline
            if not late:
                self._line.bound.wait(POLL_SECONDS)
                if self._line.bound.is_set() and said:
                    time.sleep(POLL_SECONDS)
            elif self._channel.waits(POLL_SECONDS) and not refuse_all(
                self._channel, errno.EIO, self._agreed_on
            ):
                return None

    def _agreed_on(self, agreed: Init) -> None:
        self._save(self._record._replace(agreed=agreed))

    def _save(self, record: Record) -> None:
        self._record = record
        records.save(self._record_path, record)

    def _answered(self, read: Read, payload: bytes | None, errno_code: int) -> None:
        assert self._mount is not None, "reads are asked for by the mount"
        self._mount.answered(read, payload, errno_code)

    def _ticked(self) -> None:
        if self._stored is not None:
            self._stored.let_go()


def report(line: str) -> None:
    """One line for the log, on stderr."""
    sys.stderr.write(f"cacheop mount: {line}\n")
    sys.stderr.flush()


def main(arguments: list[str]) -> int:
    """Exit code 0: the mount is gone; 2: called wrongly."""
    try:
        config, options = arguments[0], dict(zip(arguments[1::2], arguments[2::2], strict=True))
        target, fd = options["--target"], int(options["--fd"])
    except (IndexError, KeyError, ValueError):
        report("usage: python -m cache_worker mount CONFIG --target T --fd N")
        return 2
    try:
        root, grace_seconds, number = _read_config(config, target)
        path = Path(records.record_path(config, number))
        Server(root, grace_seconds, Channel(fd), path).run()
    except CacheopError as error:
        report(str(error))
        return error.exit_code
    # The line's thread may hold the interpreter's locks; there is nothing to flush but this.
    sys.stderr.flush()
    os._exit(0)


def _read_config(config: str, target: str) -> tuple[Path, float, int]:
    """(root, grace time, which of CONFIG's mounts `target` is)."""
    from cache_worker import settings  # only after the arguments are right

    loaded = settings.load(config)
    for number, mount in enumerate(loaded.mounts):
        if str(mount.target) == target:
            return loaded.root, loaded.dataset.spec.mount.grace_seconds, number
    raise UserError(f"{target} is not among the mounts of {config}")
