"""Where the rows are measured: hosts, the S3 server with its data, one way to fill a cluster."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.cluster.limits import raw
from benchmarks.mount.machine import cpu_seconds
from benchmarks.setting import SMALL_BYTES
from tests.fakes.lab.nodes import cluster, running
from tests.fakes.lab.origin import PIECE_BYTES
from tests.fakes.lab.readers import Readers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from benchmarks.cluster.limits import Raw
    from tests.fakes.lab.network import Host, Lab
    from tests.fakes.lab.nodes import LabNode
    from tests.fakes.lab.origin import Files, Origin
    from tests.fakes.lab.readers import Seen

NODES = ("n0", "n1", "n2", "n3", "n4")
S3, REDIS = "s3", "redis"
HALF_SECONDS = 120.0
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured. Quick shows that it works, its figures are not for quoting."""

    big_files: int
    big_bytes: int
    medium_files: int
    """Of 1 MiB: enough reads a second for a p99 of one."""
    small_files: int
    rounds: int
    warm_mbit: int
    big_mbit: int
    """Links of every node and the origin, both ways, while the big files are read."""
    medium_mbit: int
    small_mbit: int
    redis_away_seconds: float
    redis_before_seconds: float
    placed_chunks: int

    @classmethod
    def of(cls, *, quick: bool) -> Sizes:
        """A full or a quick run."""
        if quick:
            return cls(24, 2 * PIECE_BYTES, 200, 500, 1, 1000, 200, 100, 50, 8.0, 5.0, 200_000)
        return cls(40, 2 * PIECE_BYTES, 400, 1000, 3, 1000, 200, 100, 50, 60.0, 20.0, 10_000_000)


@dataclass(frozen=True, slots=True)
class Load:
    """What the CPUs did meanwhile, as shares of all of them."""

    machine: float
    lab: float
    """The processes on the hosts alone."""

    def __str__(self) -> str:
        """For a row's note."""
        return f"CPU {self.machine:.0%}, lab {self.lab:.0%}"


@dataclass(slots=True)
class Fill:
    """What came of readers on a cluster that read a Dataset."""

    seen: list[Seen]
    seconds: float
    """Of the slowest reader."""
    origin_bytes: dict[str, float]
    listings: float
    sent_ratio: float
    """What left the origin's host, with headers, to the Dataset."""
    load: Load

    @property
    def bad(self) -> int:
        """Reads that failed or gave wrong bytes."""
        return sum(len(seen.wrong) + len(seen.errors) for seen in self.seen)

    @property
    def first_error(self) -> str:
        """The first one, in words."""
        told = [str(what) for seen in self.seen for what in [*seen.wrong, *seen.errors]]
        return told[0] if told else ""


class Place:
    """The lab, the origin and its Datasets."""

    def __init__(self, lab: Lab, origin: Origin, directory: Path, sizes: Sizes) -> None:
        self.lab, self.origin, self.directory, self.sizes = lab, origin, directory, sizes
        self._made: dict[str, Files] = {}

    def host(self, name: str) -> Host:
        """A host of the lab."""
        return self.lab.host(name)

    def hosts(self, count: int) -> list[Host]:
        """Those of the first nodes."""
        return [self.host(name) for name in NODES[:count]]

    @property
    def big(self) -> Files:
        """Files of several chunks."""
        return self._files("big", self.sizes.big_files, self.sizes.big_bytes)

    @property
    def medium(self) -> Files:
        """Files of 1 MiB."""
        return self._files("medium", self.sizes.medium_files, 1 << 20)

    @property
    def small(self) -> Files:
        """Files of 110 KB."""
        return self._files("small", self.sizes.small_files, SMALL_BYTES)

    def _files(self, name: str, count: int, size_bytes: int) -> Files:
        if name not in self._made:
            self._made[name] = self.origin.make(name, count, size_bytes)
        return self._made[name]

    def shape(self, mbit: float) -> None:
        """Every link of the lab, both ways; all faults are taken back."""
        self.lab.heal()
        for host in self.lab.hosts:
            host.shape(up_mbit=mbit, down_mbit=mbit)

    def nodes(self, count: int, files: Files, **more: Any) -> list[LabNode]:
        """Nodes with empty caches, not started."""
        mounts = self.origin.mounts(files)
        return cluster(self.hosts(count), self.directory / "nodes", mounts, **more)

    @contextlib.contextmanager
    def running(self, count: int, files: Files, **more: Any) -> Iterator[Sequence[LabNode]]:
        """The same, started; gone with their caches at the end."""
        with running(self.nodes(count, files, **more)) as nodes:
            yield nodes

    @contextlib.contextmanager
    def raw(self, host: str, size_bytes: int) -> Iterator[Raw]:
        """A raw server: the limit."""
        with raw(self.host(host), self.directory, size_bytes) as found:
            yield found

    @contextlib.contextmanager
    def measured(self) -> Iterator[Callable[[float], Load]]:
        """A function that tells what the CPUs did since; its argument is CPU time of the ended."""
        before, ticks = self._spent(), _ticks()

        def load(more_seconds: float = 0.0) -> Load:
            busy, total = (now - then for now, then in zip(_ticks(), ticks, strict=True))
            after = self._spent()
            ours = sum(after[pid] - before.get(pid, 0.0) for pid in after) + more_seconds
            return Load(busy / max(total, 1), ours * TICKS_PER_SECOND / max(total, 1))

        yield load

    def _spent(self) -> dict[int, float]:
        return {pid: cpu_seconds([pid]) for host in self.lab.hosts for pid in host.pids()}

    def fill(
        self,
        nodes: Sequence[LabNode],
        files: Files,
        *,
        during: Callable[[float, Readers], None] | None = None,
        counted: Callable[[LabNode], bool] = lambda _: True,
        **how: Any,
    ) -> Fill:
        """Let readers read all of a Dataset on all nodes; `during` may do something meanwhile.

        Nodes that are not `counted` at the end are not asked what they read from the origin.
        """
        s3 = self.host(S3)
        before = s3.sent_bytes()
        with Readers(nodes, files, **how) as readers, self.measured() as load:
            began = readers.start()
            if during:
                during(began, readers)
            seen = readers.results()
            spent = load(sum(one.cpu_seconds for one in seen))
        asked = [node for node in nodes if counted(node)]
        return Fill(
            seen=seen,
            seconds=max(one.seconds for one in seen),
            origin_bytes={node.name: origin_bytes(node) for node in asked},
            listings=sum(node.metric("cacheop_origin_requests_total", op="list") for node in asked),
            sent_ratio=(s3.sent_bytes() - before) / files.total_bytes,
            load=spent,
        )


def origin_bytes(node: LabNode) -> float:
    """What it read from the origin so far."""
    return node.metric("cacheop_origin_bytes_total")


def wait_filled(node: LabNode, files: Files, share: float) -> None:
    """Until so much of the Dataset is in a node's cache."""
    deadline = time.monotonic() + HALF_SECONDS
    while node.status()["cached_bytes"] < share * files.total_bytes:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{node.name} does not fill")
        time.sleep(0.02)


def _ticks() -> tuple[int, int]:
    """(busy, all) ticks of the machine's CPUs."""
    with open("/proc/stat", encoding="ascii") as file:
        ticks = [int(field) for field in file.readline().split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)
