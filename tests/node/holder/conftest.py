from __future__ import annotations

import contextlib
import json
import mmap
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cache_worker.holder import messages, mountinfo, mounting, syscalls
from cacheop.api import names
from tests.fakes.holder_worker import VERSION, OneFile, PublishWorker

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).parents[3]


class Speaker:
    """Speaks to holder.sock: supervisor stand-in, mount process or command."""

    def __init__(self, root: Path) -> None:
        deadline = time.monotonic() + 10
        while True:
            try:
                self.sock = messages.connect(str(root))
                break
            except OSError:
                assert time.monotonic() < deadline, "no holder"
                time.sleep(0.02)
        self.sock.settimeout(10)
        self.mounts: dict[str, tuple[dict[str, Any], list[int]]] = {}

    def say(self, **message: Any) -> None:
        messages.send(self.sock, message)

    def hear(self) -> dict[str, Any]:
        """The next message; mounts are kept and acknowledged, as a supervisor does."""
        received = messages.receive(self.sock)
        if received is None:
            raise ConnectionError("the holder closed the connection")
        message, fds = received
        if message.get("op") == "mount":
            self.mounts[message["mount"]["id"]] = (message["mount"], fds)
            self.say(op="held", id=message["mount"]["id"])
        elif message.get("op") == "gone":
            messages.close_all(self.mounts.pop(message["id"], ({}, []))[1])
        else:
            assert not fds
        return message

    def ask(self, **message: Any) -> dict[str, Any]:
        self.say(**message)
        return self.hear()

    def hold(self, having: Speaker | None = None) -> list[dict[str, Any]]:
        """Speak as the supervisor, which has what `having` had; what the holder says to that."""
        self.say(op="hold")
        if having is not None:
            self.mounts, having.mounts = having.mounts, {}
            for mount, fds in self.mounts.values():
                messages.send(self.sock, {"op": "held", "mount": mount}, fds)
        self.say(op="held_all")
        heard = [self.hear()]
        while heard[-1]["op"] != "ready":
            heard.append(self.hear())
        return heard

    def is_closed(self) -> bool:
        try:
            return self.sock.recv(65536) == b""
        except (ConnectionError, OSError):
            return True


class Place:
    """A root with a store, a worker stand-in, and the holder's process."""

    def __init__(self, path: Path) -> None:
        self.path, self.root = path, path / "root"
        self.data = self.root / names.data_path(VERSION)
        self.data.mkdir(parents=True)
        self.target = path / "mnt"
        self.config = path / "config.json"
        self.holder: subprocess.Popen[bytes] | None = None
        self.worker: PublishWorker | None = None
        self.speakers: list[Speaker] = []
        self.log = path / "log"

    def work(self, **answer: Any) -> PublishWorker:
        self.worker = PublishWorker(self.root, **answer)
        return self.worker

    def write_config(self, mounts: list[dict[str, str]]) -> None:
        self.config.write_text(json.dumps({"root": str(self.root), "mounts": mounts}))

    def start(self, *, mode: str | None = "Passthrough") -> subprocess.Popen[bytes]:
        """The holder; with one mount in CONFIG unless `mode` is None."""
        if not self.config.exists():
            wanted = [] if mode is None else [{"target": str(self.target), "mode": mode}]
            self.write_config(wanted)
        self.holder = subprocess.Popen(
            [sys.executable, "-m", "cache_worker", "hold", str(self.config)],
            cwd=REPOSITORY,
            stderr=self.log.open("ab"),
        )
        return self.holder

    def kill(self, number: int = signal.SIGKILL) -> None:
        assert self.holder is not None
        self.holder.send_signal(number)
        self.holder.wait(10)

    def speaker(self) -> Speaker:
        self.speakers.append(Speaker(self.root))
        return self.speakers[-1]

    def supervisor(self) -> Speaker:
        """Stands in for a supervisor that has taken the (one) mount."""
        supervisor = self.speaker()
        supervisor.hold()
        while not supervisor.mounts:
            supervisor.hear()
        return supervisor

    def seen(self) -> mountinfo.Mounted | None:
        return mountinfo.topmost(mounting.read_mounts(), str(self.target))

    def close(self) -> None:
        if self.holder is not None and self.holder.poll() is None:
            self.kill()
        for speaker in self.speakers:
            for _, fds in speaker.mounts.values():
                messages.close_all(fds)
            speaker.sock.close()
        if self.worker is not None:
            self.worker.close()
        for mounted in reversed(mounting.read_mounts()):
            if mounted.target.startswith(f"{self.path}/"):
                syscalls.detach(mounted.target)


class Served:
    """A Passthrough mount with a FUSE server and the lane of its mount process."""

    def __init__(self, place: Place, supervisor: Speaker) -> None:
        self.place = place
        self.mount, self.fds = next(iter(supervisor.mounts.values()))
        self._map = mmap.mmap(self.fds[2], 0, access=mmap.ACCESS_READ)
        self.ids = memoryview(self._map).cast("I")
        name = "file.bin"
        self.content = os.urandom(100_000)
        (place.data / name).write_bytes(self.content)
        self.path = f"{names.data_path(VERSION)}/{name}"
        self.server = OneFile(self.fds[0], self.ids, name, len(self.content))
        assert self.server.initialized.wait(5)
        self.lane = place.speaker()
        assert self.lane.ask(op="serve", id=self.mount["id"], lane=0) == {"ok": True}

    def backing(self, path: str | None = None, node: int = 2) -> dict[str, Any]:
        return self.lane.ask(op="backing", node=node, path=self.path if path is None else path)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    try:
        yield made
    finally:
        made.close()
        with contextlib.suppress(OSError):
            sys.stderr.write(made.log.read_text())


@pytest.fixture
def served(place: Place) -> Served:
    place.work()
    place.start()
    return Served(place, place.supervisor())
