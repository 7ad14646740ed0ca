"""A mounted Dataset: a real supervisor and mount process, and the fake worker."""

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

from cache_worker.mounts import attach
from cacheop.api import wire
from tests.fakes.stored_version import StoreFiles, lay_out

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REPOSITORY = Path(__file__).parents[3]
NEEDED = "needs root and /dev/fuse"


class Mounted:
    def __init__(self, directory: Path, grace: str = "60s") -> None:
        self.root = directory / "root"
        self.target = directory / "mnt"
        self.config = directory / "node-0.json"
        self.root.mkdir()
        self.target.mkdir()
        self.config.write_text(json.dumps(self._config(directory, grace)))
        self.supervisor: subprocess.Popen[bytes] | None = None
        self.log = (directory / "stderr").open("ab")

    def _config(self, directory: Path, grace: str) -> dict[str, object]:
        dataset = {
            "apiVersion": "cacheop.io/v1alpha1",
            "kind": "Dataset",
            "metadata": {"name": "demo"},
            "spec": {"mounts": [{"mountPoint": "s3://demo/"}], "mount": {"grace": grace}},
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
        self.supervisor = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.mount_processes", "supervise", str(self.config)],
            cwd=REPOSITORY,
            stderr=self.log,
            env={**os.environ, **environment},
        )
        wait_for(lambda: self.kind() is not None or self.supervisor.poll() is not None)

    def kind(self) -> str | None:
        found = attach.mounted_at(str(self.target), attach.read_mountinfo())
        return found and found[0]

    def child(self, verb: str) -> int | None:
        assert self.supervisor is not None
        children = Path(f"/proc/{self.supervisor.pid}/task/{self.supervisor.pid}/children")
        for pid in children.read_text().split():
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if verb.encode() in command:
                return int(pid)
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
        assert self.supervisor is not None
        self.supervisor.terminate()
        return self.supervisor.wait(timeout=20)

    def close(self) -> None:
        if self.supervisor is not None and self.supervisor.poll() is None:
            self.stop()
        while self.kind() is not None:
            attach.detach(str(self.target))
        self.log.close()


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
        files: dict[str, int], *, grace: str = "60s", start: bool = True
    ) -> tuple[Mounted, StoreFiles]:
        directory = tmp_path / f"m{len(made)}"
        directory.mkdir()
        mount = Mounted(directory, grace)
        made.append(mount)
        store = lay_out(mount.root, files)
        if start:
            mount.start()
        return mount, store

    yield make
    for mount in made:
        mount.close()
