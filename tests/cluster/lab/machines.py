"""A machine of the lab: namespaces of its own with a first process that keeps daemons running.

Ending that process ends all that the machine runs and mounts: the kernel sees to it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cluster.lab.places import STATE

if TYPE_CHECKING:
    from collections.abc import Sequence

INIT = Path(__file__).with_name("init.py")
START_SECONDS = 15.0
END_SECONDS = 30.0
COMMAND_SECONDS = 60.0
LOG_TAIL_BYTES = 3000


@dataclass(frozen=True, slots=True)
class Machine:
    """One of them, running or not. `address` is its link's on the lab's switch."""

    name: str
    address: str

    @property
    def directory(self) -> Path:
        """What is on its disk, its daemons and their logs."""
        return STATE / self.name

    @property
    def pid(self) -> int:
        """Its first process, as this machine numbers it; 0 when it does not run."""
        wanted = [str(INIT), str(self.directory), self.name]
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                    if words[1:4] == wanted:
                        return int(entry.name)
        return 0

    def start(self) -> None:
        """Switch it on; its network is not there yet, so its daemons wait."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for old in [self.directory / "up", self.directory / "daemons.json"]:
            old.unlink(missing_ok=True)
        for off in self.directory.glob("*.off"):
            off.unlink()
        namespaces = ["--mount", "--propagation=slave", "--pid", "--fork", "--kill-child"]
        namespaces += ["--mount-proc", "--net", "--uts", "--ipc"]
        with (self.directory / "init.log").open("wb") as log:
            subprocess.Popen(
                ["unshare", *namespaces, sys.executable, INIT, self.directory, self.name],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not (self.directory / "up").exists():
            if time.monotonic() > deadline:
                said = (self.directory / "init.log").read_text(errors="replace")
                raise TimeoutError(f"the machine {self.name} does not start:\n{said}")
            time.sleep(0.02)

    def end(self) -> None:
        """Switch it off, with all it runs and mounts. Its disk stays."""
        deadline = time.monotonic() + END_SECONDS
        while pid := self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                raise TimeoutError(f"the machine {self.name} does not end: its process {pid} lives")
            time.sleep(0.02)

    def run_daemons(self, daemons: dict[str, list[str]]) -> None:
        """These, and no others, shall run."""
        new = self.directory / "daemons.new"
        new.write_text(json.dumps(daemons, indent=1))
        new.rename(self.directory / "daemons.json")

    def stop(self, daemon: str) -> None:
        """Kill a daemon and keep it down, until `resume`."""
        (self.directory / f"{daemon}.off").touch()

    def resume(self, daemon: str) -> None:
        """Let it run again."""
        (self.directory / f"{daemon}.off").unlink(missing_ok=True)

    def inside(self, *command: str) -> list[str]:
        """The command that runs this one on the machine."""
        return [*self._enter(), "--mount", "--uts", "--ipc", "--pid", "--wd=/", "--", *command]

    def in_network(self, *command: str) -> list[str]:
        """The command that runs this one in the machine's network, but with our files."""
        return [*self._enter(), "--", *command]

    def _enter(self) -> list[str]:
        if not (pid := self.pid):
            raise RuntimeError(f"the machine {self.name} does not run: ./dev cluster-up")
        return ["nsenter", f"--target={pid}", "--net"]

    def log_tails(self) -> str:
        """The end of each daemon's log, for the error that says what did not start."""
        found = []
        for path in sorted((self.directory / "logs").glob("*.log")):
            text = path.read_text(errors="replace")
            starts = text.count("\n--- ") + text.startswith("--- ")
            found.append(f"===== {path}, started {starts} times, ends with:")
            found.append(text[-LOG_TAIL_BYTES:])
        return "\n".join(found)


def run(command: Sequence[str], *, given: str = "", seconds: float = COMMAND_SECONDS) -> str:
    """What the command prints. Raises OSError with what it said when it fails."""
    done = subprocess.run(
        command, check=False, input=given, capture_output=True, text=True, timeout=seconds
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise OSError(f"{shlex.join(map(str, command))}: {said} {given}".strip())
    return done.stdout


def sweep_cgroups() -> None:
    """What containers left: groups of processes without any. The kernel refuses for others'."""
    root = Path("/sys/fs/cgroup")
    for base in [root / "k8s.io", *root.glob("*/k8s.io")]:
        for directory, _, _ in os.walk(base, topdown=False):
            with contextlib.suppress(OSError):
                Path(directory).rmdir()


def sweep_state() -> None:
    """Everything on the machines' disks."""
    shutil.rmtree(STATE, ignore_errors=True)
