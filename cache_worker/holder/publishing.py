"""Making one mount, in a thread of its own: wait for the worker, choose the mode, mount.

It may take as long as the worker takes to list its origin; the holder goes on meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time

from cache_worker.holder import kept, mountinfo, mounting, native, records, worker_line
from cacheop.api import mount_modes
from cacheop.api.errors import (
    CacheopError,
    NotFoundError,
    ProtocolError,
    StoreError,
    UserError,
    WorkerUnavailable,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cache_worker.holder.kept import Kept
    from cache_worker.holder.records import Mount

RETRY_SECONDS = 0.2
_HOPELESS = (UserError, NotFoundError)


class Place:
    """The Dataset's cache directory, opened once."""

    __slots__ = ("fd", "owner", "path")

    def __init__(self, path: str) -> None:
        self.path = os.path.realpath(path)
        self.fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.owner = os.fstat(self.fd).st_uid

    def close(self) -> None:
        """Let go of it."""
        os.close(self.fd)

    def memory_name(self, mount_id: str) -> str:
        """Tells this Dataset's shared memory from another's."""
        found = os.fstat(self.fd)
        return f"{found.st_dev:x}-{found.st_ino:x}-{mount_id}"


class Answer:
    """What the worker says of the version to publish."""

    __slots__ = (
        "cached_percentage",
        "complete",
        "grace_seconds",
        "mode",
        "rows",
        "total_bytes",
        "version",
    )

    def __init__(self, meta: dict[str, object]) -> None:
        version, rows, total_bytes = meta.get("version"), meta.get("rows"), meta.get("bytes")
        grace_seconds, mode = meta.get("grace_seconds"), meta.get("mode")
        if (
            not isinstance(version, str)
            or not records.is_version(version)
            or not isinstance(rows, int)
            or not records.is_rows(rows)
            or not isinstance(total_bytes, int)
            or not isinstance(grace_seconds, int | float)
            or not isinstance(mode, str)
            or mode not in mount_modes.WISHES
        ):
            raise ProtocolError(f"the worker's answer to publish is not whole: {str(meta)[:200]}")
        self.version = version
        self.rows = rows
        self.total_bytes = total_bytes
        self.complete = meta.get("complete") is True
        percentage = meta.get("cached_percentage")
        self.cached_percentage = float(percentage) if isinstance(percentage, int | float) else 0.0
        self.grace_seconds = float(grace_seconds)
        self.mode = mode


class Publication:
    """One mount on its way. Made and cancelled by the loop, run by its thread."""

    def __init__(
        self,
        place: Place,
        mount_id: str,
        target: str,
        mode: str,
        version: str,
        *,
        deadline: float = float("inf"),
        done: Callable[[Publication], None],
        report: Callable[[str], None],
    ) -> None:
        self.id = mount_id
        self.target = target
        self.mode = mode
        """The wish; "" = the Dataset's."""
        self.version = version
        """"" = the Dataset's, or the current one."""
        self.mount: Mount | None = None
        self.kept: Kept | None = None
        self.error: CacheopError | None = None
        self.cancelled = False
        self._place = place
        self._deadline = deadline
        self._done = done
        self._report = report
        self._line: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin; `done` is called on the thread when it ended, by `mount` and `kept` or `error`."""
        self._thread.start()

    def wait(self, seconds: float) -> None:
        """Until it ended, at most so long."""
        self._thread.join(max(0.0, seconds))

    def cancel(self) -> None:
        """Wake the thread and let it end; what it has made meanwhile is the loop's to undo."""
        self.cancelled = True
        line = self._line
        if line is not None:
            with contextlib.suppress(OSError):  # it is not connected any more
                line.shutdown(socket.SHUT_RDWR)

    def _run(self) -> None:
        said = ""
        while not self.cancelled:
            try:
                self.mount, self.kept = self._attempt()
                self.error = None
                break
            except OSError as error:
                self.error = _named(error, self.target)
            if time.monotonic() > self._deadline or (
                self._deadline != float("inf") and isinstance(self.error, _HOPELESS)
            ):
                break
            if str(self.error) != said and not self.cancelled:
                said = str(self.error)
                self._report(f"{self.target} is not mounted yet: {said}")
            time.sleep(RETRY_SECONDS)
        self._done(self)

    def _attempt(self) -> tuple[Mount, Kept]:
        answer = self._ask(self.version)
        wish = self.mode or answer.mode
        mode, why = mount_modes.choose(wish, facts(self._place, answer))
        mounting.prepare(self.target, self._place.path)
        if mode == mount_modes.NATIVE:
            locked = native.lock(self._place.fd, answer.version)
            try:
                # Only what is whole while we hold the lock stays whole.
                answer.complete = self._ask(answer.version).complete
                if answer.complete and not self.cancelled:
                    native.bind(locked, self.target)
                    return self._described(answer, mode, why), kept.Kept([locked], None)
            except OSError:
                os.close(locked)
                raise
            os.close(locked)
            mode, why = mount_modes.choose(wish, facts(self._place, answer))
        if self.cancelled:
            raise WorkerUnavailable("not wanted any more")
        return self._attach(answer, mode, why)

    def _attach(self, answer: Answer, mode: str, why: str) -> tuple[Mount, Kept]:
        """A FUSE mount."""
        fuse, device = mounting.attach(self.target, self._place.path)
        if not mounting.widen_readahead(device):
            self._report(f"cannot raise the readahead of {self.target}: big files read slower")
        try:
            made = kept.make_fuse(fuse, answer.rows, self._place.memory_name(self.id))
        except OSError:
            os.close(fuse)  # the mount is dead now; the next attempt removes it
            raise
        return self._described(answer, mode, why), made

    def _described(self, answer: Answer, mode: str, why: str) -> Mount:
        seen = mountinfo.topmost(mounting.read_mounts(), self.target)
        return records.Mount(
            id=self.id,
            target=self.target,
            mode=mode,
            why=why,
            version=answer.version,
            rows=answer.rows,
            device=seen.device if seen is not None else "",
            grace_seconds=answer.grace_seconds,
        )

    def _ask(self, version: str) -> Answer:
        """The worker's `publish`, which waits until there is such a version."""
        return ask_version(self._place, version, self._deadline, self._take_line)

    def _take_line(self, line: socket.socket | None) -> None:
        self._line = line


def ask_version(
    place: Place,
    version: str,
    deadline: float,
    line: Callable[[socket.socket | None], None] = lambda _: None,
) -> Answer:
    """The worker's `publish`; see worker_line.ask."""
    return Answer(
        worker_line.ask(place.fd, {"op": "publish", "version": version}, deadline, line=line)
    )


def facts(place: Place, answer: Answer) -> mount_modes.Facts:
    """What the mode of a mount depends on."""
    store = mountinfo.holding(mounting.read_mounts(), place.path)
    with open("/proc/meminfo", encoding="ascii") as file:
        available_bytes = mount_modes.available_bytes(file.read())
    return mount_modes.Facts(
        complete=answer.complete,
        total_bytes=answer.total_bytes,
        rows=answer.rows,
        available_bytes=available_bytes,
        file_system=store[0].kind if store is not None else "",
        kernel=mount_modes.kernel_version(os.uname().release),
    )


def _named(error: OSError, target: str) -> CacheopError:
    if isinstance(error, CacheopError):
        return error
    return StoreError(f"cannot mount at {target}: {error.strerror or error}")
