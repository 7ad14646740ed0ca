"""Keeping processes alive, in the one thread of a tiny process (supervisor, launcher).

A child is started by fork and exec with the fds it inherits, gets a signal when its parent dies
(PDEATHSIG), is reaped, and started again: at once, or a bit later when it keeps dying at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

EXIT_BAD_INPUT = 2
QUICK_SECONDS = 1.0  # a child that lived shorter died "at once"
BACKOFF_FIRST_SECONDS, BACKOFF_MAX_SECONDS = 0.1, 5.0
KILLED_MAX_SECONDS = 0.1
"""Who was killed by SIGKILL had no say in it, and readers wait: back soon, however often."""
LAST_REAP_SECONDS = 5.0
ENDING = {signal.SIGTERM, signal.SIGINT}
_WATCHED = ENDING | {signal.SIGCHLD}
_PR_SET_PDEATHSIG = 1


class Child:
    """One process to keep alive."""

    def __init__(
        self,
        name: str,
        arguments: list[str],
        *,
        death: int,
        environment: dict[str, str] | None = None,
        fds: tuple[int, ...] = (),
    ) -> None:
        self.name = name
        self.arguments = arguments
        self.death = death
        """The signal it gets when its parent dies."""
        self.environment = environment
        """None = the parent's."""
        self.fds = fds
        """What it inherits, under the same numbers."""
        self.wanted = True
        self.pid = 0
        self.pid_before = 0
        self.started = 0.0
        self.quick_deaths = 0
        self.due = 0.0
        """time.monotonic() when it is to be started; meaningful while pid is 0."""


def restart_delay_seconds(quick_deaths: int, *, killed: bool = False) -> float:
    """How long to wait before the next start after so many quick deaths in a row."""
    if quick_deaths < 2:
        return 0.0
    longest = KILLED_MAX_SECONDS if killed else BACKOFF_MAX_SECONDS
    return min(BACKOFF_FIRST_SECONDS * 2.0 ** min(quick_deaths - 2, 16), longest)


def died(child: Child, now: float, code: int) -> None:
    """Note the death of `child` and when it is due again."""
    quick = now - child.started < QUICK_SECONDS
    child.quick_deaths = child.quick_deaths + 1 if quick else 0
    child.pid_before, child.pid = child.pid, 0
    killed = code == -signal.SIGKILL
    child.due = now + restart_delay_seconds(child.quick_deaths, killed=killed)


def how(code: int) -> str:
    """What an exit code says, for the log."""
    return f"was killed by signal {-code}" if code < 0 else f"exited with code {code}"


class Signals:
    """SIGCHLD, SIGTERM and SIGINT as something to poll for; `close` puts back what was."""

    def __init__(self) -> None:
        self.fd, self._written = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._wakeup = signal.set_wakeup_fd(self._written, warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, _nothing) for number in _WATCHED}

    def wait(self, seconds: float, *others: int) -> set[int]:
        """Which of `others` can be read, or set() when a signal came or the time is over."""
        poll = select.poll()
        for fd in (self.fd, *others):
            poll.register(fd, select.POLLIN)
        ready = {fd for fd, _ in poll.poll(max(0.0, seconds) * 1000 + 1)}
        return ready - {self.fd}

    def ending(self) -> bool:
        """Forget what came; whether somebody asked us to end."""
        try:
            came = os.read(self.fd, 4096)
        except BlockingIOError:
            return False
        return any(number in came for number in ENDING)

    def close(self) -> None:
        """As it was before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self.fd)
        os.close(self._written)


def _nothing(number: int, frame: object) -> None:
    """A handler must be there for a signal to reach the pipe."""


class Children:
    """The processes of one parent."""

    def __init__(self, command: list[str], signals: Signals, report: Callable[[str], None]) -> None:
        self._command = command
        """What runs a verb: `*command, VERB, …`."""
        self._signals = signals
        self._report = report
        self._all: list[Child] = []
        self._libc = ctypes.CDLL(None, use_errno=True)

    def add(self, child: Child) -> None:
        """Keep `child` alive; it is started by the next `start_due`."""
        self._all.append(child)

    def drop(self, child: Child) -> None:
        """Let `child` go, now; for those that have nothing to put in order."""
        child.wanted = False
        if child.pid:
            os.kill(child.pid, signal.SIGKILL)
        else:
            self._all.remove(child)

    def start_due(self) -> float:
        """Start who is due; seconds until the next one is."""
        now = time.monotonic()
        for child in self._all:
            if not child.pid and child.due <= now:
                self._start(child)
        return min((child.due - now for child in self._all if not child.pid), default=3600.0)

    def reap(self) -> list[tuple[Child, int]]:
        """Who died, with the exit code (-n: by signal n). They are due again unless dropped."""
        self._bury_orphans()
        found = []
        for child in list(self._all):
            if not child.pid or not (status := os.waitpid(child.pid, os.WNOHANG))[0]:
                continue
            code = os.waitstatus_to_exitcode(status[1])
            died(child, time.monotonic(), code)
            if child.wanted:
                found.append((child, code))
            else:
                self._all.remove(child)
        return found

    def _bury_orphans(self) -> None:
        """As process 1 of a container we inherit the children of children that died."""
        if os.getpid() != 1:
            return
        ours = {child.pid for child in self._all}
        which = os.WEXITED | os.WNOHANG | os.WNOWAIT
        with contextlib.suppress(ChildProcessError):
            while (dead := os.waitid(os.P_ALL, 0, which)) and dead.si_pid not in ours:
                os.waitpid(dead.si_pid, os.WNOHANG)

    def revive(self, child: Child) -> None:
        """Start `child` now if it is dead, also one that is not due yet."""
        self.reap()
        if not child.pid:
            self._start(child)

    def stop(self, children: Iterable[Child] | None = None, *, seconds: float) -> None:
        """End `children` (default: all) by SIGTERM, after `seconds` by SIGKILL; reap them."""
        ending = list(self._all if children is None else children)
        self._signal(ending, signal.SIGTERM)
        if self._wait_for(ending, seconds):
            return
        for child in ending:
            if child.pid:
                self._report(f"the {child.name} did not end within {seconds:.0f} s: killed")
        self._signal(ending, signal.SIGKILL)
        self._wait_for(ending, LAST_REAP_SECONDS)

    def _signal(self, children: list[Child], number: int) -> None:
        for child in children:
            child.wanted = False
            if child.pid:
                os.kill(child.pid, number)
            elif child in self._all:
                self._all.remove(child)

    def _wait_for(self, children: list[Child], seconds: float) -> bool:
        """Whether all of `children` ended in time."""
        deadline = time.monotonic() + seconds
        while True:
            self.reap()
            if not any(child.pid for child in children):
                return True
            left_seconds = deadline - time.monotonic()
            if left_seconds <= 0:
                return False
            self._signals.wait(left_seconds)
            self._signals.ending()  # a second SIGTERM asks for what is under way already

    def _start(self, child: Child) -> None:
        parent = os.getpid()
        child.started = time.monotonic()
        # Blocked around the fork: until exec a signal to the child would speak in our pipe.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
        try:
            child.pid = os.fork()
            if not child.pid:
                self._become(child, parent)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _become(self, child: Child, parent: int) -> None:
        """In the forked process: never returns."""
        try:
            self._libc.prctl(_PR_SET_PDEATHSIG, int(child.death), 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)
            signal.set_wakeup_fd(-1)
            for number in _WATCHED:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)
            for fd in child.fds:
                os.set_inheritable(fd, True)
            command = [*self._command, *child.arguments]
            environment = dict(os.environ) if child.environment is None else child.environment
            os.execve(command[0], command, environment)  # noqa: S606 - no shell is meant
        except BaseException as error:  # noqa: BLE001 - a forked child must never return
            self._report(f"cannot start the {child.name}: {error}")
        finally:
            os._exit(1)


def say(who: str, line: str) -> None:
    """One line for the log, on stderr. A log on a failing disk must end nobody who serves."""
    try:
        sys.stderr.write(f"cacheop {who}: {line}\n")
        sys.stderr.flush()
    except OSError:
        return
