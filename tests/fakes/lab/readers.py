"""Checksum readers on the nodes of a lab, started together; what they saw."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.fakes.lab.nodes import LabNode
    from tests.fakes.lab.origin import Files

READY_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Seen:
    """What one reader saw. Moments are time.monotonic()'s, the same in all processes."""

    node: str
    began: float
    ended: float
    bytes: int
    cpu_seconds: float
    reads: list[tuple[float, float, int]]
    """(moment of the end, seconds, bytes) of each."""
    wrong: list[Any]
    errors: list[Any]

    @property
    def seconds(self) -> float:
        """From the start to the last byte."""
        return self.ended - self.began

    def between(self, since: float, until: float) -> list[tuple[float, float, int]]:
        """The reads that ended then."""
        return [read for read in self.reads if since <= read[0] < until]


class Readers:
    """One reader process on each node, each in an order of its own. A context manager."""

    def __init__(
        self,
        nodes: Sequence[LabNode],
        files: Files,
        *,
        threads: int = 8,
        epochs: int = 1,
        seed: int = 1,
    ) -> None:
        self.nodes = list(nodes)
        self._processes: list[subprocess.Popen[str]] = []
        for number, node in enumerate(nodes):
            plan = {
                "cache": str(node.root),
                "catalog": str(files.catalog),
                "seed": seed * 1000 + number,
                "threads": threads,
                "epochs": epochs,
            }
            with node.host.inside():
                process = subprocess.Popen(
                    [sys.executable, "-m", "tests.fakes.lab.reader"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            self._processes.append(process)
            assert process.stdin
            process.stdin.write(json.dumps(plan) + "\n")
            process.stdin.flush()

    def start(self) -> float:
        """Let all go when all are ready; the moment."""
        for node, process in zip(self.nodes, self._processes, strict=True):
            assert process.stdout
            if process.stdout.readline() != "ready\n":
                raise RuntimeError(f"the reader on {node.name} failed; what it said is above")
        for process in self._processes:
            assert process.stdin
            process.stdin.write("go\n")
            process.stdin.flush()
        return time.monotonic()

    def stop(self) -> None:
        """Let them end before they are through."""
        for process in self._processes:
            assert process.stdin
            process.stdin.write("stop\n")
            process.stdin.flush()

    def results(self, seconds: float = 300.0) -> list[Seen]:
        """What each saw, when all are through; without those whose node was killed."""
        deadline = time.monotonic() + seconds
        found = []
        for node, process in zip(self.nodes, self._processes, strict=True):
            text, _ = process.communicate(timeout=max(0.1, deadline - time.monotonic()))
            if process.returncode == 0:
                found.append(Seen(node=node.name, **json.loads(text)))
            elif process.returncode > 0:
                raise RuntimeError(f"the reader on {node.name} failed; what it said is above")
        return found

    def close(self) -> None:
        """End those that still run."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait(10)
            for pipe in (process.stdin, process.stdout):
                if pipe and not pipe.closed:
                    pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
