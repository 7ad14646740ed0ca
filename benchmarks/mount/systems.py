"""What is measured: plain ext4, and cacheop brought up as a user would, in one mode or another."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from benchmarks.memory import processes as processes_of
from benchmarks.mount.figures import EXT4

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from benchmarks.mount.place import Place
    from benchmarks.setting import Setting

AUTO = "Auto"
NAME = "mount"
MOUNTED_SECONDS = 60.0
CLI_SECONDS = 900
TOLD_SECONDS = 2.5
"""Mount processes tell what they served once a second."""

_INTO_GROUPS = 'for p in $GROUPS_OF; do echo $$ >"$p" || exit 1; done; exec "$@"'


@dataclass(frozen=True, slots=True)
class System:
    """A directory with the files, and whose CPU time its reads cost besides the reader's."""

    name: str
    root: Path
    processes: Callable[[], Mapping[str, Sequence[int]]] = field(default=dict)
    mode: str = ""
    """What cacheop chose, and why."""


def ext4(place: Place) -> System:
    """The baseline: the same files in a plain directory on the same disk."""
    return System(EXT4, place.plain)


def command(setting: Setting, *arguments: str, procs: Sequence[str] = ()) -> str:
    """`cacheop …`, started inside the groups of `procs`; its standard output."""
    done = subprocess.run(
        [
            "/bin/sh", "-c", _INTO_GROUPS, "sh",
            sys.executable, "-c", "from cacheop.cli.main import run; run()", *arguments,
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=CLI_SECONDS,
        env={**setting.environment, "GROUPS_OF": " ".join(procs)},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"cacheop {' '.join(arguments)}: {done.stderr}")
    return done.stdout


class Cacheop:
    """A Dataset that is up and mounted."""

    def __init__(self, setting: Setting, name: str, target: Path) -> None:
        self.setting, self.name, self.target = setting, name, target

    def status(self) -> dict[str, Any]:
        """`cacheop status -o json` of the one node."""
        node: dict[str, Any] = self.setting.status(self.name)["nodes"][0]
        return node

    def mount(self) -> dict[str, Any]:
        """What status says of the mount."""
        found = [m for m in self.status()["mounts"] if m["target"] == str(self.target)]
        if not found:
            raise RuntimeError(f"{self.target} is not among the mounts of {self.name}")
        mount: dict[str, Any] = found[0]
        return mount

    def is_mounted(self) -> bool:
        """Whether the mount is there, be it a bind of the same disk, and status knows of it."""
        with open("/proc/self/mountinfo", encoding="utf-8") as file:
            there = any(line.split()[4] == str(self.target) for line in file)
        return there and any(m["target"] == str(self.target) for m in self.status()["mounts"])

    def requests(self) -> dict[str, int]:
        """Requests that reached Python since the mount began, once all are told."""
        time.sleep(TOLD_SECONDS)
        return dict(self.mount().get("requests") or {})

    def processes(self) -> Mapping[str, Sequence[int]]:
        """Launcher, holder, supervisor, worker and mount processes, by verb."""
        return processes_of(self.setting.directory / "run" / f"default.{self.name}" / "node-0.json")

    def load(self, path: str) -> float:
        """`cacheop load`; bytes a second, as the worker counts them."""
        found = json.loads(command(self.setting, "load", self.name, "--path", path, "-o", "json"))
        report = found["nodes"][0] if "nodes" in found else found
        if report["phase"] != "Complete":
            raise RuntimeError(f"load ended as {report['phase']}: {report['failed'][:3]}")
        return float(report["rate_bytes_per_second"])

    def evict(self, path: str) -> None:
        """`cacheop evict`: nothing of it is left on the disk."""
        command(self.setting, "evict", self.name, "--path", path, "--yes")

    def system(self, wished: str) -> System:
        """For the readers, under the name of the mode that was wished for."""
        mount = self.mount()
        chosen = f"{mount['mode']}: {mount['why']}" if mount.get("why") else str(mount["mode"])
        return System(wished, self.target, self.processes, chosen)


def options_for(mode: str) -> tuple[str, ...]:
    """Of `cacheop up`; Auto is what it does when nothing is said."""
    return () if mode == AUTO else ("--mount-mode", mode)


@contextmanager
def mounted(
    place: Place,
    mode: str,
    *,
    file: Path | None = None,
    name: str = NAME,
    procs: Sequence[str] = (),
) -> Iterator[Cacheop]:
    """The Dataset up and mounted over the one cache, which stays for the next mode; then down."""
    from benchmarks.mount.place import BUCKET

    setting, target = place.setting, place.directory / f"mnt-{name}"
    found = Cacheop(setting, name, target)
    file = file or setting.dataset(name, BUCKET)
    options = ("--cache", str(cache_of(place)), "--mount", str(target), *options_for(mode))
    command(setting, "up", "-f", str(file), *options, procs=procs)
    try:
        end = time.monotonic() + MOUNTED_SECONDS
        while not found.is_mounted():
            if time.monotonic() > end:
                raise RuntimeError(f"{target} was not mounted in {MOUNTED_SECONDS:.0f} s")
            time.sleep(0.05)
        yield found
    finally:
        command(setting, "down", name)


def cache_of(place: Place) -> Path:
    """The cache directory of all modes."""
    return place.directory / "cache"


def fill(place: Place) -> None:
    """All files in the cache, and the Dataset down again; quick when they are there."""
    with mounted(place, AUTO) as cacheop:
        cacheop.load("/")
