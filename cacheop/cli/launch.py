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
from dataclasses import dataclass
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
    from collections.abc import Callable

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
    started: Started, timeout_seconds: float, show: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """The status of a node once it is Ready and mounted; `show` gets each status before.

    The time limit begins again whenever the listing moves on. Raises what the worker says when it
    failed, WorkerUnavailable when it does not become ready in time or its launcher ends.
    """
    config = json.loads(started.record.config.read_text())
    targets = {mount["target"] for mount in config["mounts"]}
    seen: object = None
    deadline = time.monotonic() + timeout_seconds
    with contextlib.ExitStack() as stack:
        control: Control | None = None
        while True:
            _check_launcher(started)
            status: dict[str, Any] = {}
            try:
                if control is None:
                    control = stack.enter_context(Control(started.record.root))
                status = control.ask("status")
            except WorkerUnavailable:
                control = None  # not up yet, or it is being started again
            missing = targets - {mount["target"] for mount in status.get("mounts") or ()}
            if status.get("phase") == "Ready" and not missing:
                return status
            if status.get("phase") == "Failed":
                raise _failure(status)
            show(status)
            progress = (status.get("phase"), (status.get("indexing") or {}).get("keys"))
            if progress != seen:
                seen, deadline = progress, time.monotonic() + timeout_seconds
            if time.monotonic() >= deadline:
                raise _late(started, timeout_seconds, status, missing)
            time.sleep(POLL_SECONDS)


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
    deadline = time.monotonic() + STOP_SECONDS
    descriptors = [fd for node in record.nodes if (fd := _ask_to_stop(node)) is not None]
    try:
        for descriptor in descriptors:
            _wait_for_end(descriptor, deadline)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    if record.mount:
        unmount(Path(record.mount), [node.root for node in record.nodes])
    shutil.rmtree(record.directory, ignore_errors=True)
    local.remove(record)


def _ask_to_stop(node: NodeRecord) -> int | None:
    """Tell worker and launcher to end; a pidfd of the launcher, None if it is gone."""
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
