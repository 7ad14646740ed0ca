"""What the links and the machine can do at best, measured where the rows are measured."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.fakes.lab.held import Held
    from tests.fakes.lab.network import Host
    from tests.fakes.lab.nodes import LabNode

PORT = 7900
SECONDS = 120


@dataclass(frozen=True, slots=True)
class Raw:
    """A raw server on `host`, and how fast others get bytes from it."""

    host: Host

    def get(self, client: Host, count: int, length: int, connections: int = 1) -> Run:
        """`count` requests of `length` bytes by a client on another host."""
        command = [sys.executable, "-m", "benchmarks.cluster.raw", "get"]
        command += [f"{self.host.address}:{PORT}", str(connections), str(count), str(length)]
        with client.inside():
            done = subprocess.run(
                command, check=True, stdout=subprocess.PIPE, text=True, timeout=SECONDS
            )
        return Run(**json.loads(done.stdout))


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a raw client."""

    seconds: float
    bytes: int
    cpu_seconds: float

    @property
    def mb_per_second(self) -> float:
        """Payload."""
        return self.bytes / self.seconds / 1e6


def received(node: LabNode, client: Host, chunks: Sequence[Held], connections: int) -> Run:
    """All of `chunks` from a worker, thrown away as they come: see receive.py."""
    config = json.loads(node.config.read_text())
    plan = {
        "address": config["peers"],
        "token": config["token_file"],
        "node": client.name,
        "version": node.version,
        "chunks": [[held.row, held.chunk, held.length] for held in chunks],
        "connections": connections,
    }
    with client.inside():
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.cluster.receive"],
            input=json.dumps(plan) + "\n",
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            timeout=SECONDS,
        )
    return Run(**json.loads(done.stdout))


@contextlib.contextmanager
def raw(host: Host, directory: Path, size_bytes: int) -> Iterator[Raw]:
    """A raw server on `host` that gives up to `size_bytes`, from a sparse file: no disk is read."""
    path = directory / "raw.bin"
    with path.open("wb") as file:
        file.truncate(size_bytes)
    command = [sys.executable, "-m", "benchmarks.cluster.raw", "serve"]
    with (
        host.inside(),
        subprocess.Popen(
            [*command, f"{host.address}:{PORT}", str(path)], stdout=subprocess.PIPE
        ) as server,
    ):
        try:
            assert server.stdout
            if not server.stdout.readline():
                raise RuntimeError("the raw server did not start; what it said is above")
            yield Raw(host)
        finally:
            server.kill()
            path.unlink()
