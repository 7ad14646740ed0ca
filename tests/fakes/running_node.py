"""All processes of one node, started as `cacheop up` does: launcher, holder, supervisor, worker and
mount processes. Tells who runs, asks the holder, kills, waits until all is whole again.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.fakes.running_worker import RunningWorker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROLES = {"hold": "holder", "supervise": "supervisor", "work": "worker", "mount": "mount"}
PACKET_BYTES = 1 << 20
WHOLE_SECONDS = 20.0
STOP_SECONDS = 20.0


class RunningNode(RunningWorker):
    """A Dataset with `mounts` (the entries of CONFIG) on one node.

    `spec` goes into the Dataset as it is.
    """

    def __init__(self, directory: Path, origin: str, mounts: list[dict[str, str]], **more: Any):
        super().__init__(directory, [{"mountPoint": origin}], verb="run", **more)
        config = json.loads(self.config.read_text())
        self.config.write_text(json.dumps({**config, "mounts": mounts}))
        self.roots: list[int] = []
        """Process ids, where a test starts supervisor and holder itself."""
        self.targets = [Path(mount["target"]) for mount in mounts]

    def start(self, *, ready: bool = True, seconds: float = 30) -> float:
        """Seconds until the worker was ready (or answered) and the mounts were served."""
        taken = super().start(ready=ready, seconds=seconds)
        if ready:
            self.wait_whole(seconds)
        return taken

    # -- processes --------------------------------------------------------------------------------

    def pids(self) -> dict[str, list[int]]:
        """Who runs below the launcher (or what took its place): role -> process ids."""
        found: dict[str, list[int]] = {role: [] for role in ROLES.values()}
        waiting = list(self.roots) or [self.process.pid]
        while waiting:
            parent = waiting.pop()
            waiting += _children(parent)
            if role := _role(parent):
                found[role].append(parent)
        return found

    def kill(self, role: str = "", number: signal.Signals = signal.SIGKILL) -> list[int]:
        """Signal all processes of `role` ("" = the launcher); who they were."""
        if not role:
            super().kill()
            return []
        pids = self.pids()[role]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return pids

    def replace(self, role: str) -> None:
        """Kill all of `role`, wait until others are there and all is whole."""
        wait_for(lambda: self.pids()[role])
        before = self.kill(role)
        wait_for(lambda: not set(before) & set(self.pids()[role]))
        self.wait_whole()

    def all_pids(self) -> list[int]:
        """Every process of this node, the launcher first."""
        return [self.process.pid, *(pid for pids in self.pids().values() for pid in pids)]

    # -- mounts -----------------------------------------------------------------------------------

    def ask_holder(self, message: dict[str, Any], seconds: float = 20.0) -> dict[str, Any]:
        """One question to holder.sock. OSError while there is no holder."""
        return ask_holder(self.root, message, seconds)

    def report(self) -> list[dict[str, Any]]:
        """What the holder knows of its mounts."""
        return self.ask_holder({"op": "report"}, 5)["mounts"]

    def mount_at(self, target: Path) -> dict[str, Any]:
        return next(m for m in self.report() if m["target"] == str(target))

    def is_whole(self, count: int | None = None) -> bool:
        """Whether all hold every fd, every mount is served, and the worker answers."""
        try:
            mounts = self.report()
            self.call("health", 5)
        except (OSError, ValueError, KeyError):
            return False
        wanted = len(self.targets) if count is None else count
        if any(mount["mode"] != "Native" for mount in mounts) and not self.pids()["mount"]:
            return False
        return len(mounts) >= wanted and all(is_served(mount) for mount in mounts)

    def wait_whole(self, seconds: float = WHOLE_SECONDS) -> None:
        try:
            wait_for(self.is_whole, seconds)
        except AssertionError:
            state: Any = None
            with contextlib.suppress(OSError, ValueError):
                state = self.report()
            raise AssertionError(f"not whole again: {state} {self.pids()} {self.tail()}") from None

    def requests(self, target: Path) -> dict[str, int]:
        """How many requests of each kind reached the mount process."""
        for mount in self.status()["mounts"]:
            if mount["target"] == str(target):
                return dict(mount.get("requests", {}))
        return {}

    # -- end --------------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop all; nothing may be left, whatever state it was in."""
        pids = self.all_pids() if self.process and self.process.poll() is None else []
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        try:
            self.stop()
        finally:
            for pid in pids:
                if pid != self.process.pid and _role(pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            for target in self.targets:
                unmount(target)

    def __exit__(self, *_: object) -> None:
        self.close()


def is_served(mount: dict[str, Any]) -> bool:
    """Whether holder and supervisor hold its fds and, where the holder is needed, it is asked.

    Only Passthrough needs it: processes of the other modes never speak to the holder.
    """
    both = bool(mount["held"] and mount["supervisor"])
    return both and (mount["mode"] != "Passthrough" or bool(mount["lanes"]))


def ask_holder(root: Path, message: dict[str, Any], seconds: float) -> dict[str, Any]:
    """One packet to `<root>/holder.sock` and its answer."""
    directory = os.open(root, os.O_PATH | os.O_CLOEXEC)  # socket addresses are short
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(seconds)
            connection.connect(f"/proc/self/fd/{directory}/holder.sock")
            connection.send(json.dumps(message).encode())
            answer = connection.recv(PACKET_BYTES)
    finally:
        os.close(directory)
    if not answer:
        raise ConnectionResetError(f"the holder did not answer {message}")
    return dict(json.loads(answer))


def mounts_at(target: Path) -> list[str]:
    """The types of what is mounted at `target`, the topmost last. Touches no mount."""
    types = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split(" ")
        if fields[4] == str(target):
            types.append(fields[fields.index("-") + 1])
    return types


def unmount(target: Path) -> None:
    """Take away everything mounted at `target`, lazily."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    for _ in mounts_at(target):
        libc.umount2(os.fsencode(target), 2)


def wait_for(condition: Callable[[], object], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def drop_kernel_caches(what: int = 3) -> None:
    """1: pages, 2: names and inodes, 3: both, of the whole machine."""
    Path("/proc/sys/vm/drop_caches").write_text(str(what))


def _children(pid: int) -> Iterator[int]:
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            yield from map(int, (task / "children").read_text().split())


def _role(pid: int) -> str:
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        if "cache_worker" in words:
            return ROLES.get(words[words.index("cache_worker") + 1], "")
    return ""
