"""A mounted Dataset: the real launcher, holder, supervisor and mount process, the fake worker."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cache_worker.holder import messages
from cacheop.api import wire
from cacheop.cli import mountinfo
from tests.fakes.stored_version import StoreFiles, lay_out

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REPOSITORY = Path(__file__).parents[3]
NEEDED = "needs root and /dev/fuse"


class Mounted:
    def __init__(self, directory: Path, grace: str = "60s", mode: str = "Fuse") -> None:
        self.root = directory / "root"
        self.target = directory / "mnt"
        self.config = directory / "node-0.json"
        self.root.mkdir()
        self.target.mkdir()
        self.config.write_text(json.dumps(self._config(directory, grace, mode)))
        self.launcher: subprocess.Popen[bytes] | None = None
        self.log = (directory / "stderr").open("ab")

    def _config(self, directory: Path, grace: str, mode: str) -> dict[str, object]:
        dataset = {
            "apiVersion": "cacheop.io/v1alpha1",
            "kind": "Dataset",
            "metadata": {"name": "demo"},
            "spec": {
                "mounts": [{"mountPoint": "s3://demo/"}],
                "mount": {"grace": grace, "mode": mode},
            },
        }
        return {
            "dataset": dataset,
            "namespace": "default",
            "name": "demo",
            "uid": "local",
            "node": "node-0",
            "root": str(self.root),
            "secrets": str(directory / "secrets"),
            "mounts": [{"target": str(self.target)}],
        }

    def script(self, **what: object) -> None:
        new = self.root / "fake.json.new"
        new.write_text(json.dumps(what))
        new.rename(self.root / "fake.json")

    def start(self, **environment: str) -> None:
        """Until it is mounted, or refused."""
        self.launcher = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.mount_processes", "run", str(self.config)],
            cwd=REPOSITORY,
            stderr=self.log,
            env={**os.environ, **environment},
        )
        wait_for(lambda: self.kind() is not None or self.launcher.poll() is not None)

    def kind(self) -> str | None:
        mounts = mountinfo.parse(mountinfo.PATH.read_text(errors="surrogateescape"))
        found = mountinfo.at(self.target, mounts)
        return found and found.type

    def report(self) -> list[dict[str, object]]:
        """What the holder says of its mounts; nothing while there is no holder."""
        try:
            with messages.connect(str(self.root)) as line:
                line.settimeout(5)
                messages.send(line, {"op": "report"})
                received = messages.receive(line)
        except OSError:
            return []
        assert received is not None
        return received[0]["mounts"]

    def whole(self) -> bool:
        """Whether holder, supervisor and a mount process all have the mount's fds."""
        found = self.report()
        return bool(found) and all(m["held"] and m["supervisor"] for m in found)

    def child(self, verb: str) -> int | None:
        assert self.launcher is not None
        waiting = [self.launcher.pid]
        while waiting:
            for pid in children(waiting.pop()):
                waiting.append(pid)
                try:
                    command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if verb.encode() in command:
                    return pid
        return None

    def kill(self, verb: str) -> None:
        """kill -9 of a child; returns when it is gone."""
        wait_for(lambda: self.child(verb) is not None)
        pid = self.child(verb)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: self.child(verb) != pid)

    def evict(self, *paths: str) -> None:
        """Let the worker, the one writer, evict; waits for one to be there."""
        wait_for(lambda: self._evicted(paths))

    def _evicted(self, paths: tuple[str, ...]) -> bool:
        fd = os.open(self.root, os.O_PATH)
        try:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(f"/proc/self/fd/{fd}/worker.sock")
                meta = {"op": "evict", "paths": paths}
                sock.sendall(wire.encode(wire.Frame(wire.REQUEST, 1, meta)))
                return bool(sock.recv(4096))
        except OSError:  # it is dying, or not there yet
            return False
        finally:
            os.close(fd)

    def requests(self, kind: str) -> list[list[str]]:
        log = self.root / "fake.log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [line.split()[1:] for line in lines if line.startswith(kind)]

    def stop(self) -> int:
        assert self.launcher is not None
        self.launcher.terminate()
        return self.launcher.wait(timeout=30)

    def close(self) -> None:
        if self.launcher is not None and self.launcher.poll() is None:
            self.stop()
        while self.kind() is not None:
            subprocess.run(["umount", "-l", self.target], check=True)
        self.log.close()


def children(pid: int) -> list[int]:
    """The processes that `pid` started and that live."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def wait_for(condition: Callable[[], object], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[..., tuple[Mounted, StoreFiles]]]:
    """Makes a Dataset of `files` (path -> bytes) and mounts it."""
    if os.geteuid() != 0 or not Path("/dev/fuse").exists():
        pytest.skip(NEEDED)
    made: list[Mounted] = []

    def make(
        files: dict[str, int], *, grace: str = "60s", mode: str = "Fuse", start: bool = True
    ) -> tuple[Mounted, StoreFiles]:
        directory = tmp_path / f"m{len(made)}"
        directory.mkdir()
        mount = Mounted(directory, grace, mode)
        made.append(mount)
        store = lay_out(mount.root, files)
        if start:
            mount.start()
        return mount, store

    yield make
    for mount in made:
        mount.close()
