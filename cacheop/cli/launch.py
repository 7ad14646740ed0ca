"""Launchers as processes: start one, wait until its worker is ready and mounted, stop it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cacheop import local
from cacheop.api.errors import (
    CacheopError,
    NotFoundError,
    UserError,
    WorkerUnavailable,
    from_wire,
)
from cacheop.cli import mountinfo, view
from cacheop.cli.control import Control

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Self

    from cacheop.local import NodeRecord, RunRecord

POLL_SECONDS = 0.02
STOP_SECONDS = 30.0  # more than a launcher takes that kills all it has
SHUTDOWN_ANSWER_SECONDS = 5.0
LOG_TAIL_LINES = 10
SHARED_UMASK = 0o022
"""Whatever the user's: clients of other users open cached files themselves. What is private is
made private by its own mode."""
LOG_TAIL_BYTES = 16 << 10
_LOG_ERROR = re.compile(r"\d{4}-\S+ \S+ ERROR \S+: |cacheop (launcher|supervisor|holder): ")
"""What the worker's log puts before the words of an error, and the other processes' always."""


@dataclass(frozen=True, slots=True)
class Started:
    """A launcher that this process started."""

    record: NodeRecord
    process: subprocess.Popen[bytes]
    """Never waited for without a deadline; it outlives us on purpose."""


def log_path(config: Path) -> Path:
    """Where the processes of the node with this config write."""
    return config.with_suffix(".log")


def start(node: str, root: Path, config: Path) -> Started:
    """Start the launcher of one node, detached: it lives on when this process ends."""
    # -P: what lies in the working directory is never imported.
    command = [sys.executable, "-P", "-m", "cache_worker", "run", str(config)]
    with log_path(config).open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,
            umask=SHARED_UMASK,
        )
    return Started(local.NodeRecord(node, root, process.pid, config), process)


def wait_ready(
    started: Sequence[Started],
    timeout_seconds: float,
    show: Callable[[dict[str, Any] | None], None],
) -> list[dict[str, Any]]:
    """The status of each node once all are Ready and mounted; `show` gets the listing before.

    The time limit begins again whenever something moves on: in a cluster one node lists for all.
    Raises what a worker says when it failed, WorkerUnavailable when they do not become ready in
    time or a launcher ends.
    """
    seen: object = None
    deadline = time.monotonic() + timeout_seconds
    with contextlib.ExitStack() as stack:
        nodes = [stack.enter_context(_Starting(one)) for one in started]
        while True:
            for node in nodes:
                node.look()
            late = [node for node in nodes if not node.is_ready]
            if not late:
                return [node.status for node in nodes]
            listing = [i for node in late if (i := node.status.get("indexing"))]
            show(listing[0] if listing else None)
            phases = [(node.status.get("phase"), node.is_ready) for node in nodes]
            progress = phases, [found.get("keys") for found in listing]
            if progress != seen:
                seen, deadline = progress, time.monotonic() + timeout_seconds
            if time.monotonic() >= deadline:
                raise late[0].late(timeout_seconds)
            time.sleep(POLL_SECONDS)


class _Starting:
    """A node that is waited for."""

    def __init__(self, started: Started) -> None:
        self._started = started
        config = json.loads(started.record.config.read_text())
        self._targets = {mount["target"] for mount in config["mounts"]}
        self._control: Control | None = None
        self.status: dict[str, Any] = {}
        """The last one; empty while none answers."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._hang_up()

    def _hang_up(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None

    def _missing(self) -> set[str]:
        return self._targets - {mount["target"] for mount in self.status.get("mounts") or ()}

    @property
    def is_ready(self) -> bool:
        """Whether it serves, and every mount is there."""
        return self.status.get("phase") == "Ready" and not self._missing()

    def look(self) -> None:
        """Ask for its status, unless it is ready already. Raises what will not mend itself."""
        if self.is_ready:
            return
        _check_launcher(self._started)
        try:
            if self._control is None:
                self._control = Control(self._started.record.root)
            self.status = self._control.ask("status")
        except WorkerUnavailable:
            self._hang_up()  # not up yet, or it is being started again
            self.status = {}
        if self.status.get("phase") == "Failed":
            raise _failure(self.status)

    def late(self, timeout_seconds: float) -> CacheopError:
        """Why it took too long."""
        return _late(self._started, timeout_seconds, self.status, self._missing())


def _failure(status: dict[str, Any]) -> CacheopError:
    error = from_wire(status.get("error") or {"message": "the worker failed"})
    if isinstance(error, NotFoundError):
        # A bucket or server path that is not there: the Dataset names it, so the input is wrong.
        return UserError(error.message, hint=error.hint)
    return error


def _check_launcher(started: Started) -> None:
    code = started.process.poll()
    if code is None:
        return
    lines = log_tail(started.record.config) or ["it wrote nothing"]
    errors = [line for line in lines if _LOG_ERROR.match(line)] or lines
    last = _LOG_ERROR.sub("", errors[-1])
    if code == UserError.exit_code:
        raise UserError(last)
    raise WorkerUnavailable(f"the launcher of {started.record.node} ended ({code}): {last}")


def _late(
    started: Started, timeout_seconds: float, status: dict[str, Any], missing: set[str]
) -> CacheopError:
    if status.get("phase") == "Ready":
        last = (log_tail(started.record.config) or ["its log is empty"])[-1]
        return WorkerUnavailable(
            f"{', '.join(sorted(missing))} was not mounted after "
            f"{view.duration(timeout_seconds)}: {last}",
            hint="Give it longer with --timeout",
        )
    told = [c["message"] for c in status.get("conditions") or () if c.get("status") != "True"]
    last = (log_tail(started.record.config) or ["its worker does not answer"])[-1]
    why = "; ".join(filter(None, told)) or status.get("phase") or last
    return WorkerUnavailable(
        f"{started.record.node} was not ready after {view.duration(timeout_seconds)}: {why}",
        hint="Give it longer with --timeout",
    )


def log_tail(config: Path) -> list[str]:
    """The last lines that the processes of a node wrote."""
    try:
        with log_path(config).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return []  # never started, or removed
    return [line for line in text.splitlines() if line.strip()][-LOG_TAIL_LINES:]


def stop(record: RunRecord) -> None:
    """Stop all nodes of `record`, unmount, forget it. The cache stays.

    Idempotent: whatever is gone already is passed over.
    """
    _stop_nodes(record, record.nodes)
    shutil.rmtree(record.directory, ignore_errors=True)
    local.remove(record)


def stop_node(record: RunRecord, node: NodeRecord) -> None:
    """Stop one node of several; the next `up` starts it again."""
    _stop_nodes(record, [node])
    local.write(record.with_nodes({node.node: replace(node, pid=0)}))


def _stop_nodes(record: RunRecord, nodes: Sequence[NodeRecord]) -> None:
    deadline = time.monotonic() + STOP_SECONDS
    descriptors = [fd for node in nodes if (fd := _ask_to_stop(node)) is not None]
    try:
        for descriptor in descriptors:
            _wait_for_end(descriptor, deadline)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    if record.mount:
        unmount(Path(record.mount), [node.root for node in nodes])


def _ask_to_stop(node: NodeRecord) -> int | None:
    """Tell worker and launcher to end; a pidfd of the launcher, None if it is gone."""
    if node.is_stopped:
        return None
    try:
        # Held before the pid is looked at: from here on it cannot become another process.
        descriptor = os.pidfd_open(node.pid)
    except ProcessLookupError:
        return None
    if not local.is_alive(node):
        os.close(descriptor)
        return None
    try:
        with Control(node.root) as control:
            control.ask("shutdown", silence_seconds=SHUTDOWN_ANSWER_SECONDS)
    except CacheopError:
        pass  # dead or hanging: the signal below is for that
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(descriptor, signal.SIGTERM)
    return descriptor


def _wait_for_end(descriptor: int, deadline: float) -> None:
    """Return when the process of a pidfd has ended; after `deadline` it is killed."""
    ended, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
    if not ended:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        select.select([descriptor], [], [], 5.0)


def unmount(target: Path, roots: list[Path]) -> None:
    """Take away our mounts at `target`, also those whose server is dead. Others are left alone."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    mnt_detach = 2
    while True:
        mounts = mountinfo.parse(mountinfo.PATH.read_text(errors="surrogateescape"))
        found = mountinfo.at(target, mounts)
        if found is None or not mountinfo.is_ours(found, roots, mounts):
            return
        if libc.umount2(os.fsencode(target), mnt_detach) != 0:
            code = ctypes.get_errno()
            raise CacheopError(
                f"cannot unmount {target}: {os.strerror(code)}", hint=f"Try `umount -l {target}`"
            )
