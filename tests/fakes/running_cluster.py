"""Real workers on 127.0.0.1 that are one cluster, over a web server that counts what leaves it."""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

import xxhash

from tests.fakes.running_node import wait_for
from tests.fakes.running_worker import RunningWorker
from tests.fakes.web_server import WebServer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

MIB = 1 << 20
TOKEN = "sesame"


def some_files(seed: int = 1, *, small: int = 32, big: int = 2) -> dict[str, bytes]:
    """Small files of one chunk and big ones of two: about 20 MB."""
    source = random.Random(seed)
    found = {f"d{i % 4}/f{i:03}": source.randbytes(30_000 + 500 * i) for i in range(small)}
    return found | {f"big/b{i}": source.randbytes(9 * MIB + i) for i in range(big)}


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class Reader(threading.Thread):
    """Reads every file once in an order of its own, compares, and notes how long the slowest took.

    `seconds`: reads on, at random, for so long instead.
    """

    def __init__(
        self,
        node: RunningWorker,
        files: Mapping[str, bytes],
        seed: int,
        *,
        version: str = "",
        seconds: float = 0.0,
    ) -> None:
        super().__init__(daemon=True)
        self.sums = {
            path: (len(data), xxhash.xxh3_64_intdigest(data)) for path, data in files.items()
        }
        self.filesystem = node.filesystem()
        self.base = f"data@{version}" if version else "data"
        self.seed, self.seconds = seed, seconds
        self.done, self.slowest = 0, 0.0
        self.wrong: list[str] = []
        self.errors: list[tuple[str, BaseException]] = []
        self.ended = threading.Event()
        self.start()

    def run(self) -> None:
        order = sorted(self.sums)
        source = random.Random(self.seed)
        source.shuffle(order)
        stop = time.monotonic() + self.seconds
        if not self.seconds:
            for path in order:
                self._read(path)
        while time.monotonic() < stop and not self.ended.is_set():
            self._read(source.choice(order))

    def _read(self, path: str) -> None:
        started = time.monotonic()
        try:
            data = self.filesystem.cat_file(f"{self.base}/{path}")
        except OSError as error:
            self.errors.append((path, error))
            time.sleep(0.05)
        else:
            if (len(data), xxhash.xxh3_64_intdigest(data)) != self.sums[path]:
                self.wrong.append(path)
        self.slowest = max(self.slowest, time.monotonic() - started)
        self.done += 1

    def finish(self, seconds: float = 100.0) -> Self:
        """Wait for its end; everything must have been right."""
        self.join(seconds)
        assert not self.is_alive(), f"hangs after {self.done} reads"
        assert not self.wrong
        assert not self.errors, self.errors[:3]
        return self


class RunningCluster:
    """`specs`, `zones`, `tokens`, `listed` by node number change what that node is started with."""

    def __init__(
        self,
        directory: Path,
        files: Mapping[str, bytes],
        count: int = 4,
        *,
        spec: dict[str, Any] | None = None,
        specs: Mapping[int, dict[str, Any]] | None = None,
        zones: Mapping[int, str] | None = None,
        tokens: Mapping[int, str] | None = None,
        others: Iterable[tuple[str, str]] = (),
    ) -> None:
        """`others`: (node, address) of more members, which are the test's."""
        self.directory, self.files = directory, dict(files)
        self.origin = WebServer(directory / "origin")
        (directory / "origin").mkdir(parents=True)
        self.put(files)
        self.origin.__enter__()
        self.addresses = [f"127.0.0.1:{port}" for port in free_ports(count)]
        members = [
            {"node": f"n{k}", "address": address, "zone": (zones or {}).get(k, "")}
            for k, address in enumerate(self.addresses)
        ]
        members += [{"node": node, "address": address, "zone": ""} for node, address in others]
        self.nodes = []
        for k, address in enumerate(self.addresses):
            token = directory / f"token-{k}"
            token.write_text((tokens or {}).get(k, TOKEN))
            self.nodes.append(
                RunningWorker(
                    directory / f"n{k}",
                    [{"mountPoint": self.origin.url + "/", "path": "/"}],
                    spec={**(spec or {}), **(specs or {}).get(k, {})},
                    node=f"n{k}",
                    zone=(zones or {}).get(k, ""),
                    peers=address,
                    token_file=str(token),
                    members={"static": members},
                )
            )

    def put(self, files: Mapping[str, bytes]) -> None:
        """Into the origin."""
        for path, data in files.items():
            target = self.directory / "origin" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)

    @property
    def bytes(self) -> int:
        return sum(map(len, self.files.values()))

    def start(self, *numbers: int, see_each_other: bool = True) -> None:
        """Start these nodes, by default all, and wait until they are ready and see each other."""
        chosen = [self.nodes[k] for k in numbers or range(len(self.nodes))]
        starting = [threading.Thread(target=node.start, kwargs={"seconds": 60}) for node in chosen]
        for thread in starting:
            thread.start()
        for thread in starting:
            thread.join()
        wait_for(lambda: all(node.status()["phase"] == "Ready" for node in chosen), 30)
        if see_each_other:
            self.settle()

    def running(self) -> list[RunningWorker]:
        return [node for node in self.nodes if node.process and node.process.poll() is None]

    def settle(self, seconds: float = 30.0) -> None:
        """Wait until all that run see just each other, and have one version."""
        wait_for(self.is_settled, seconds)

    def is_settled(self) -> bool:
        names = {json.loads(node.config.read_text())["node"] for node in self.running()}
        for node in self.running():
            try:
                status = node.status()
            except OSError:
                return False
            live = {m["node"]: m for m in status["members"] if m["live"]}
            if set(live) != names or any(m["version"] != status["version"] for m in live.values()):
                return False
        return True

    def read_all(self, *numbers: int, seconds: float = 100.0) -> None:
        """Every file at these nodes, by default at all, at the same time in different orders."""
        nodes = [self.nodes[k] for k in numbers] or self.running()
        for reader in [Reader(node, self.files, k) for k, node in enumerate(nodes)]:
            reader.finish(seconds)

    def evict(self, *numbers: int) -> None:
        """Everything at these nodes, by default at all that run."""
        for node in [self.nodes[k] for k in numbers] or self.running():
            node.call("evict", paths=[])

    def begin_cold(self) -> int:
        """As if started just now, but for a dataset that was listed; what has left the origin."""
        self.start_missing()
        for node in self.nodes:
            node.call("resume")
        self.evict()
        return self.origin.sent_bytes

    def start_missing(self) -> None:
        running = self.running()
        missing = [k for k, node in enumerate(self.nodes) if node not in running]
        if missing:
            self.start(*missing)

    def wait_for_bytes(self, count: int, seconds: float = 60.0) -> None:
        wait_for(lambda: self.origin.sent_bytes >= count, seconds)

    def logs(self) -> str:
        return "".join(node.log.read_text() for node in self.nodes if node.log.exists())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            if node.process and node.process.poll() is None:
                node.kill()
        self.origin.__exit__()
