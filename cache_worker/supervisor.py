"""The supervisor: `python -m cache_worker supervise CONFIG`.

Starts the worker and the mount processes of each mount, and starts them again at once when they
die. Mounts are made and removed by the holder, which passes their fds here; both keep them, so that
either may die: the other gives them back. It does little, in one thread, and stays small: no
asyncio, dataclasses, pathlib, subprocess, and of CONFIG only the few keys it needs (<= 12 MiB PSS).
If it is killed, its children die with it; readers wait until the next one has started new ones.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time

from cache_worker import brief
from cache_worker.children import EXIT_BAD_INPUT, Child, Children, Signals, how, say
from cache_worker.holder import messages
from cacheop.api.errors import CacheopError, ProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any

    from cache_worker.brief import Brief

STOP_SECONDS = 8.0
RECONNECT_SECONDS = 0.05
SEND_SECONDS = 1.0
MOUNT_PROCESSES_MAX, CPUS_PER_PROCESS = 4, 4
JEMALLOC_CONF = "dirty_decay_ms:2000,muzzy_decay_ms:0,narenas:2,background_thread:true"
FUSE_FDS, NATIVE_FDS = 3, 1
NATIVE, PASSTHROUGH = "Native", "Passthrough"


def process_count(mode: str, wished: int, cpus: int) -> int:
    """How many mount processes serve a mount; pure.

    Native needs none. Passthrough has one: what is open, and how, must be decided in one place.
    """
    if mode == NATIVE:
        return 0
    if mode == PASSTHROUGH:
        return 1
    return wished or max(1, min(MOUNT_PROCESSES_MAX, cpus // CPUS_PER_PROCESS))


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


class Held:
    """One mount: what it is, its fds, and who serves it."""

    def __init__(self, mount: dict[str, Any], fds: list[int]) -> None:
        self.mount = mount
        self.fds = fds
        self.processes: list[Child] = []


class Supervisor:
    """Worker and mount processes of one CONFIG."""

    def __init__(self, config: str, command: list[str]) -> None:
        self._config = config
        self._command = command
        self._brief: Brief = brief.read(config)
        self._signals = Signals()
        self._children = Children(command, self._signals, report)
        self._mounts: dict[str, Held] = {}
        self._line: socket.socket | None = None
        self._connect_due = 0.0

    def run(self) -> int:
        """Until a signal, or until a child ends for good; the exit code. Called once."""
        # SIGTERM, not SIGKILL, when we die: it still closes its store cleanly.
        worker = Child(
            "worker",
            ["work", self._config],
            death=signal.SIGTERM,
            environment=worker_environment(dict(os.environ), find_jemalloc()),
        )
        try:
            self._children.add(worker)
            return self._watch()
        finally:
            self._children.stop(seconds=STOP_SECONDS)
            for held in self._mounts.values():
                messages.close_all(held.fds)
            self._hang_up()
            self._signals.close()

    def _watch(self) -> int:
        while True:
            wait_seconds = self._children.start_due()
            if self._brief.has_holder and self._line is None:
                wait_seconds = min(wait_seconds, self._connect())
            line = self._line
            ready = self._signals.wait(wait_seconds, *([line.fileno()] if line else []))
            if self._signals.ending():
                return 0
            code = self._look_who_died()
            if code is not None:
                return code
            if line is not None and line.fileno() in ready:
                self._hear(line)

    def _look_who_died(self) -> int | None:
        """The exit code if that ends everything."""
        for child, code in self._children.reap():
            if code == EXIT_BAD_INPUT and child.name == "worker":
                return code
            if code == 0 and child.name == "worker":
                return code
            held = next((h for h in self._mounts.values() if child in h.processes), None)
            if code == 0 and held is not None:
                report(f"{child.name} ended: {held.mount['target']} was unmounted")
                self._forget(held.mount["id"])
            else:
                report(f"{child.name} (pid {child.pid_before}) {how(code)}, starting it again")
        return None

    # --- the holder -------------------------------------------------------------------------

    def _connect(self) -> float:
        """Tell the holder what we hold; seconds until the next attempt if nobody is there."""
        now = time.monotonic()
        if now < self._connect_due:
            return self._connect_due - now
        self._connect_due = now + RECONNECT_SECONDS
        try:
            self._line = messages.connect(self._brief.root)
            self._line.settimeout(SEND_SECONDS)
            messages.send(self._line, {"op": "hold"})
            for held in self._mounts.values():
                messages.send(self._line, {"op": "held", "mount": held.mount}, held.fds)
            messages.send(self._line, {"op": "held_all"})
        except OSError:
            self._hang_up()
        return RECONNECT_SECONDS

    def _hang_up(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None

    def _hear(self, line: socket.socket) -> None:
        """Take one message. The holder's death changes nothing but that it is looked for again."""
        try:
            received = messages.receive(line)
            if received is None:
                self._hang_up()
            else:
                self._obey(line, *received)
        except (OSError, KeyError, TypeError) as error:
            if not isinstance(error, OSError) or isinstance(error, ProtocolError):
                report(f"the holder said something that cannot be understood: {error!r}")
            self._hang_up()

    def _obey(self, line: socket.socket, message: dict[str, Any], fds: list[int]) -> None:
        op = message.get("op")
        if op != "mount":
            messages.close_all(fds)
        if op == "mount":
            mount = message["mount"]
            self._take(mount, fds)
            messages.send(line, {"op": "held", "id": mount["id"]})
        elif op == "gone":
            self._forget(message["id"])
        elif op == "changed":
            self._change(message["mount"])
        elif op == "error" or "error" in message:
            report(f"the holder refuses: {message.get('message') or message}")

    def _take(self, mount: dict[str, Any], fds: list[int]) -> None:
        """Serve a mount from now on."""
        wanted = NATIVE_FDS if mount["mode"] == NATIVE else FUSE_FDS
        if len(fds) != wanted:
            messages.close_all(fds)
            raise ProtocolError(f"{mount['target']}: {len(fds)} fds came, not {wanted}")
        self._forget(mount["id"])  # one of that name before it is over
        held = Held(mount, fds)
        self._mounts[mount["id"]] = held
        cpus = len(os.sched_getaffinity(0))
        for lane in range(process_count(mount["mode"], self._brief.mount_processes, cpus)):
            child = Child(
                f"mount process {lane} of {mount['target']}",
                self._arguments(held, lane),
                death=signal.SIGKILL,
                environment={**os.environ, "MALLOC_ARENA_MAX": "1"},
                fds=tuple(fds),
            )
            held.processes.append(child)
            self._children.add(child)
        self._children.start_due()

    def _arguments(self, held: Held, lane: int) -> list[str]:
        mount = json.dumps(held.mount, separators=(",", ":"))
        fuse, ring, ids = map(str, held.fds)
        return [
            *("mount", self._config, "--mount", mount, "--lane", str(lane)),
            *("--fuse", fuse, "--ring", ring, "--ids", ids),
        ]

    def _change(self, mount: dict[str, Any]) -> None:
        """Remember it; a mount process learns it when it is started again."""
        held = self._mounts.get(mount["id"])
        if held is None:
            return
        held.mount = mount
        for lane, child in enumerate(held.processes):
            child.arguments = self._arguments(held, lane)

    def _forget(self, mount_id: str) -> None:
        """End who serves it and let go of its fds. They keep nothing that must be put in order."""
        held = self._mounts.pop(mount_id, None)
        if held is None:
            return
        for child in held.processes:
            self._children.drop(child)
        messages.close_all(held.fds)


def report(line: str) -> None:
    """One line for the log."""
    say("supervisor", line)


def main(arguments: list[str]) -> int:
    """Exit code 0 after a signal or `shutdown`, 2 for bad input."""
    if len(arguments) != 1:
        report("usage: python -m cache_worker supervise CONFIG")
        return EXIT_BAD_INPUT
    try:
        return Supervisor(arguments[0], [sys.executable, "-m", "cache_worker"]).run()
    except CacheopError as error:
        report(str(error))
        return error.exit_code
