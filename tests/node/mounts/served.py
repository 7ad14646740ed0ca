"""A FUSE mount held by the test, served by real mount processes: no holder, no supervisor."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache_worker.holder import mounting
from cache_worker.mounts.ring import RING_BYTES, Ring
from tests.fakes.stored_version import lay_out

if TYPE_CHECKING:
    from tests.fakes.stored_version import StoreFiles

REPOSITORY = Path(__file__).parents[3]


class Served:
    """One mount at `target`; `serve(lane)` starts a process, `kill(lane)` ends it with SIGKILL."""

    def __init__(
        self, directory: Path, files: dict[str, int], *, mode: str = "Fuse", grace: float = 60.0
    ) -> None:
        self.root, self.target = directory / "root", directory / "mnt"
        self.root.mkdir()
        self.target.mkdir()
        self.store: StoreFiles = lay_out(self.root, files)
        self.config = directory / "config.json"
        self.config.write_text(json.dumps({"root": str(self.root), "dataset": {"spec": {}}}))
        self.log = directory / "stderr"
        self.mount: dict[str, Any] = {
            "id": "m0",
            "target": str(self.target),
            "mode": mode,
            "why": "the test wants it",
            "version": self.store.version,
            "rows": self.store.index.rows,
            "device": "",
            "grace_seconds": grace,
        }
        self.fuse, device = mounting.attach(str(self.target), str(self.root))
        mounting.widen_readahead(device)
        self.fds = {"fuse": self.fuse, "ring": memfd(RING_BYTES)}
        self.fds["ids"] = memfd(4 * (self.store.index.rows + 2))
        self.ring = Ring(self.fds["ring"])
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self.worker: subprocess.Popen[bytes] | None = None

    def serve(self, lane: int = 0, **environment: str) -> subprocess.Popen[bytes]:
        fds = [part for name, fd in self.fds.items() for part in (f"--{name}", str(fd))]
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "cache_worker", "mount", str(self.config)),
                    *("--mount", json.dumps(self.mount), "--lane", str(lane), *fds),
                ],
                cwd=REPOSITORY,
                stderr=log,
                pass_fds=tuple(self.fds.values()),
                env={**os.environ, **environment},
            )
        self.processes[lane] = process
        return process

    def kill(self, lane: int = 0) -> None:
        process = self.processes.pop(lane)
        process.send_signal(signal.SIGKILL)
        process.wait(10)

    def work(self) -> None:
        """Start the fake worker."""
        with self.log.open("ab") as log:
            self.worker = subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.fakes.mount_processes"),
                    *("work", str(self.config)),
                ],
                cwd=REPOSITORY,
                stderr=log,
            )

    def script(self, **what: object) -> None:
        new = self.root / "fake.json.new"
        new.write_text(json.dumps(what))
        new.rename(self.root / "fake.json")

    def asked(self, start: str) -> list[str]:
        """What the fake worker was asked."""
        try:
            lines = (self.root / "fake.log").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [line for line in lines if line.startswith(start)]

    def close(self) -> None:
        mounting.detach(str(self.target))
        for process in [*self.processes.values(), *([self.worker] if self.worker else [])]:
            process.kill()
            process.wait(10)
        for fd in self.fds.values():
            os.close(fd)


def memfd(size_bytes: int) -> int:
    fd = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size_bytes)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    return fd
