"""The launcher: `python -m cache_worker run CONFIG`, what `cacheop up` starts for a node.

Keeps supervisor and (where CONFIG has mounts) holder alive, as kubelet does on Kubernetes: two
processes that give each other the mounts' fds back, so that either may be killed at any time. Where
CONFIG has `redis_admin`, it keeps who sets the Dataset's Redis user (members/acl.py) alive too.
"""

from __future__ import annotations

import signal
import sys
import time

from cache_worker import brief
from cache_worker.children import EXIT_BAD_INPUT, Child, Children, Signals, how, say
from cache_worker.holder import messages
from cacheop.api.errors import CacheopError

UNPUBLISH_SECONDS = 5.0
STOP_SECONDS = 10.0
RETRY_SECONDS = 0.05


class Launcher:
    """Supervisor and holder of one CONFIG."""

    def __init__(self, config: str, command: list[str]) -> None:
        self._brief = brief.read(config)
        self._signals = Signals()
        self._children = Children(command, self._signals, report)
        # SIGTERM when we die: both end in order, and with the last fd each mount gives errors.
        self._supervisor = Child("supervisor", ["supervise", config], death=signal.SIGTERM)
        self._mounts = True
        """Whether there may be mounts to be removed."""
        self._holder: Child | None = None
        if self._brief.targets:
            self._holder = Child("holder", ["hold", config], death=signal.SIGTERM)
        self._acl: Child | None = None
        if self._brief.redis_admin:
            self._acl = Child(
                "keeper of the Redis user", ["redis-acl", config], death=signal.SIGTERM
            )

    def run(self) -> int:
        """Until a signal, or until a child ends for good; the exit code. Called once."""
        try:
            for child in (self._acl, self._holder, self._supervisor):
                if child is not None:
                    self._children.add(child)
            return self._watch()
        finally:
            self._stop()
            self._signals.close()

    def _watch(self) -> int:
        while True:
            self._signals.wait(self._children.start_due())
            if self._signals.ending():
                return 0
            for child, code in self._children.reap():
                if code == EXIT_BAD_INPUT or (code == 0 and child is self._supervisor):
                    # A holder that refuses to begin has mounted nothing.
                    self._mounts = child is not self._holder
                    return code
                report(f"the {child.name} (pid {child.pid_before}) {how(code)}, starting it again")

    def _stop(self) -> None:
        """Unmount, so that nobody new comes; then end the children."""
        if self._holder is not None and self._mounts:
            self._unmount(self._holder)
        self._children.stop([self._supervisor], seconds=STOP_SECONDS)
        self._children.stop(seconds=STOP_SECONDS)

    def _unmount(self, holder: Child) -> None:
        """By the holder: one that was killed just now comes back for it."""
        deadline = time.monotonic() + UNPUBLISH_SECONDS
        while True:
            try:
                return unpublish_all(self._brief.root)
            except OSError as error:
                if time.monotonic() > deadline:
                    return report(f"the holder could not unmount: {error}")
            self._children.revive(holder)
            time.sleep(RETRY_SECONDS)


def unpublish_all(root: str) -> None:
    """Let the holder remove every mount. Raises OSError."""
    with messages.connect(root) as line:
        line.settimeout(UNPUBLISH_SECONDS)
        messages.send(line, {"op": "unpublish", "all": True})
        received = messages.receive(line)
    if received is None:
        raise OSError("it ended meanwhile")
    answer, fds = received
    messages.close_all(fds)
    if not answer.get("ok"):
        raise OSError(str(answer.get("error")))


def report(line: str) -> None:
    """One line for the log."""
    say("launcher", line)


def main(arguments: list[str]) -> int:
    """Exit code 0 after a signal or `shutdown`, 2 for bad input."""
    if len(arguments) != 1:
        report("usage: python -m cache_worker run CONFIG")
        return EXIT_BAD_INPUT
    try:
        return Launcher(arguments[0], [sys.executable, "-m", "cache_worker"]).run()
    except CacheopError as error:
        report(str(error))
        return error.exit_code
