"""The supervisor: `python -m cache_worker supervise CONFIG`.

Makes the mounts, keeps their FUSE fds, starts the worker and one mount process per mount, and
starts them again at once when they die. It is the process that must not die, so it does little, in
one thread, and stays small: no asyncio, dataclasses, pathlib, subprocess, and of CONFIG only the
few keys it needs (<= 12 MiB PSS). If it is killed nevertheless, its children die with it, the last
fds of the mounts close, and readers get ENOTCONN instead of waiting for ever.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time

from cache_worker.mounts import attach
from cacheop.api.errors import CacheopError, UserError

STOP_SECONDS = 10.0
QUICK_SECONDS = 1.0  # a child that lived shorter died "at once"
BACKOFF_FIRST_SECONDS, BACKOFF_MAX_SECONDS = 0.1, 5.0
EXIT_BAD_INPUT = 2
JEMALLOC_CONF = "dirty_decay_ms:2000,muzzy_decay_ms:0,narenas:2,background_thread:true"
_PR_SET_PDEATHSIG = 1
_WAITED = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT}


class Child:
    """One process to keep alive. The supervisor's only thread owns it."""

    def __init__(
        self, name: str, arguments: list[str], environment: dict[str, str], *, fd: int, death: int
    ) -> None:
        self.name = name
        self.arguments = arguments
        self.environment = environment
        self.fd = fd
        """The FUSE fd it inherits, or -1."""
        self.death = death
        """The signal it gets when the supervisor dies."""
        self.pid = 0
        self.started = 0.0
        self.quick_deaths = 0
        self.due = 0.0
        """time.monotonic() when it is to be started; meaningful while pid is 0."""


def restart_delay_seconds(quick_deaths: int) -> float:
    """How long to wait before the next start after so many quick deaths in a row."""
    if quick_deaths < 2:
        return 0.0
    return min(BACKOFF_FIRST_SECONDS * 2.0 ** min(quick_deaths - 2, 16), BACKOFF_MAX_SECONDS)


def died(child: Child, now: float) -> None:
    """Note the death of `child` and when it is due again."""
    quick = now - child.started < QUICK_SECONDS
    child.quick_deaths = child.quick_deaths + 1 if quick else 0
    child.pid = 0
    child.due = now + restart_delay_seconds(child.quick_deaths)


def read_targets(config: str) -> list[str]:
    """Where CONFIG wants mounts. Raises UserError."""
    try:
        with open(config, encoding="utf-8") as file:
            return [str(mount["target"]) for mount in json.load(file).get("mounts", [])]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"cannot read the worker's configuration {config}: {error!r}",
            hint="It is written by `cacheop up`",
        ) from error


def find_jemalloc() -> str:
    """Path of the system's jemalloc, or "". With glibc a worker keeps 80 MB after a fill."""
    machine = os.uname().machine
    for directory in (f"/usr/lib/{machine}-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib"):
        path = f"{directory}/libjemalloc.so.2"
        if os.path.exists(path):
            return path
    return ""


def worker_environment(base: dict[str, str], jemalloc: str) -> dict[str, str]:
    """The worker's environment: with jemalloc where there is one."""
    if not jemalloc or "LD_PRELOAD" in base:
        return dict(base)
    return {**base, "LD_PRELOAD": jemalloc, "MALLOC_CONF": JEMALLOC_CONF}


class Supervisor:
    """Mounts and children of one CONFIG."""

    def __init__(self, config: str, command: list[str]) -> None:
        self._config = config
        self._command = command
        """What runs a verb: `*command, "work", CONFIG`."""
        self._mounted: list[tuple[str, int]] = []
        self._children: list[Child] = []
        self._libc = ctypes.CDLL(None, use_errno=True)

    def run(self) -> int:
        """Until a signal, or until a child ends for good; the exit code."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED)
        try:
            self._mount_all(read_targets(self._config))
            self._plan_children()
            return self._watch()
        finally:
            self._stop()
            while signal.sigtimedwait(_WAITED, 0):
                pass  # a second SIGTERM asks for what is done already
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _mount_all(self, targets: list[str]) -> None:
        if targets:
            attach.check_possible()
        for number, target in enumerate(targets):
            where = attach.prepare(target)
            _remove(f"{self._config.removesuffix('.json')}.mount-{number}")
            self._mounted.append((where, attach.attach(where)))
            if not attach.widen_readahead(where):
                report(f"cannot raise the readahead of {where}: big files read slower")
            self._children.append(
                Child(
                    f"mount process of {target}",
                    ["mount", self._config, "--target", target, "--fd", str(self._mounted[-1][1])],
                    {**os.environ, "MALLOC_ARENA_MAX": "1"},
                    fd=self._mounted[-1][1],
                    death=signal.SIGKILL,
                )
            )

    def _plan_children(self) -> None:
        environment = worker_environment(dict(os.environ), find_jemalloc())
        # SIGTERM, not SIGKILL, when we die: it still closes its store cleanly.
        worker = Child("worker", ["work", self._config], environment, fd=-1, death=signal.SIGTERM)
        self._children.insert(0, worker)

    def _watch(self) -> int:
        while True:
            now = time.monotonic()
            for child in self._children:
                if not child.pid and child.due <= now:
                    self._start(child)
            due = [child.due for child in self._children if not child.pid]
            timeout_seconds = max(0.0, min(due, default=now + 3600.0) - now)
            info = signal.sigtimedwait(_WAITED, timeout_seconds)
            if info is not None and info.si_signo != signal.SIGCHLD:
                return 0
            code = self._reap()
            if code is not None:
                return code

    def _reap(self) -> int | None:
        """Note who died; the exit code if that ends everything."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return None
            if pid == 0:
                return None
            code = os.waitstatus_to_exitcode(status)
            for child in [child for child in self._children if child.pid == pid]:
                died(child, time.monotonic())
                if code == EXIT_BAD_INPUT or (code == 0 and child.name == "worker"):
                    return code
                if code == 0:
                    report(f"{child.name} ended: it was unmounted")
                    self._children.remove(child)
                    continue
                how = f"was killed by signal {-code}" if code < 0 else f"exited with code {code}"
                report(f"{child.name} (pid {pid}) {how}, starting it again")

    def _start(self, child: Child) -> None:
        supervisor = os.getpid()
        child.started = time.monotonic()
        child.pid = os.fork()
        if child.pid:
            return
        try:
            self._libc.prctl(_PR_SET_PDEATHSIG, int(child.death), 0, 0, 0)
            if os.getppid() != supervisor:
                os._exit(1)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _WAITED)
            if child.fd >= 0:
                os.set_inheritable(child.fd, True)
            command = [*self._command, *child.arguments]
            os.execve(command[0], command, child.environment)  # noqa: S606 - no shell is meant
        except BaseException as error:  # noqa: BLE001 - a forked child must never return
            report(f"cannot start the {child.name}: {error}")
        os._exit(1)

    def _stop(self) -> None:
        """Unmount, so that nobody new comes; end the children; let go of the fds."""
        for where, _ in self._mounted:
            try:
                if attach.mounted_at(where, attach.read_mountinfo()) is not None:
                    attach.detach(where)
            except CacheopError as error:
                report(str(error))
        self._signal_all(signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while self._running() and time.monotonic() < deadline:
            signal.sigtimedwait({signal.SIGCHLD}, max(0.0, deadline - time.monotonic()))
        for child in self._running():
            report(f"the {child.name} did not end within {STOP_SECONDS:.0f} s: killed")
        self._signal_all(signal.SIGKILL)
        while self._running():
            signal.sigtimedwait({signal.SIGCHLD}, QUICK_SECONDS)
        for _, fd in self._mounted:
            os.close(fd)

    def _signal_all(self, number: int) -> None:
        for child in self._children:
            if child.pid:
                os.kill(child.pid, number)

    def _running(self) -> list[Child]:
        """Who still runs, the dead reaped."""
        for child in self._children:
            if child.pid and os.waitpid(child.pid, os.WNOHANG)[0]:
                child.pid = 0
        return [child for child in self._children if child.pid]


def _remove(path: str) -> None:
    """The record of an earlier mount must not speak for the new one."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def report(line: str) -> None:
    """One line for the log, on stderr."""
    sys.stderr.write(f"cacheop supervisor: {line}\n")
    sys.stderr.flush()


def main(arguments: list[str]) -> int:
    """Exit code 0 after a signal or `shutdown`, 2 for bad input, 1 when a mount failed."""
    if len(arguments) != 1:
        report("usage: python -m cache_worker supervise CONFIG")
        return EXIT_BAD_INPUT
    try:
        return Supervisor(arguments[0], [sys.executable, "-m", "cache_worker"]).run()
    except CacheopError as error:
        report(str(error))
        return error.exit_code
