"""Real torch over real workers: what a plan does, and that a bad one does no harm."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.running_cluster import RunningCluster, free_ports
from tests.fakes.trainer import Job, command

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

torch = pytest.importorskip("torch", reason="torch is not installed: ./dev test brings it")
pytestmark = [pytest.mark.node, pytest.mark.timeout(180)]

FILES, BYTES = 640, 20_000
ROOT = Path(__file__).parents[3]


def some_files(seed: int = 5, count: int = FILES) -> dict[str, bytes]:
    dice = random.Random(seed)
    return {f"d{i % 4}/f{i:04}": dice.randbytes(BYTES + i) for i in range(count)}


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Any]:
    """Starts a cluster of `count` nodes over an origin 30 ms away."""
    clusters: list[RunningCluster] = []

    def start(count: int, files: dict[str, bytes], **spec: Any) -> RunningCluster:
        cluster = RunningCluster(tmp_path / f"c{len(clusters)}", files, count, spec=spec)
        clusters.append(cluster)
        cluster.origin.delay_seconds = 0.03
        cluster.start()
        return cluster

    yield start
    for cluster in clusters:
        cluster.__exit__()


def job_of(cluster: RunningCluster, node: int = 0, **more: Any) -> Job:
    return Job(str(cluster.nodes[node].root), sorted(cluster.files), **more)


def start(job: Job) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(job),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def finish(trainers: Sequence[subprocess.Popen[str]]) -> list[dict[str, Any]]:
    found = []
    for trainer in trainers:
        out, said = trainer.communicate(timeout=120)
        assert trainer.returncode == 0, said[-3000:]
        found.append(json.loads(out))
    return found


def train(cluster: RunningCluster, ranks: int = 1, **more: Any) -> list[dict[str, Any]]:
    port = free_ports(1)[0]
    nodes = len(cluster.nodes)
    return finish(
        [
            start(job_of(cluster, rank % nodes, rank=rank, ranks=ranks, port=port, **more))
            for rank in range(ranks)
        ]
    )


def order_of(ranks: int, rank: int, epoch: int, count: int) -> list[int]:
    sampler = torch.utils.data.DistributedSampler(range(count), ranks, rank, seed=0)
    sampler.set_epoch(epoch)
    return list(sampler)


def check(results: list[dict[str, Any]], files: dict[str, bytes]) -> None:
    """Each epoch's order is torch's own, and the bytes are the origin's."""
    paths = sorted(files)
    for rank, result in enumerate(results):
        for number, epoch in enumerate(result["epochs"]):
            order = order_of(len(results), rank, number, len(paths))
            assert [p.partition("/")[2] for p, _ in epoch["read"]] == [paths[i] for i in order]
            for path, digest in epoch["read"]:
                assert digest == hashlib.sha256(files[path.partition("/")[2]]).hexdigest()


def plans(cluster: RunningCluster) -> list[dict[str, Any]]:
    return [plan for node in cluster.nodes for plan in node.status()["plans"]]


def planned_bytes(cluster: RunningCluster) -> float:
    return sum(node.metric("cacheop_planned_bytes_total") for node in cluster.nodes)


@pytest.mark.parametrize(("nodes", "ranks"), [(1, 1), (1, 4), (4, 4)])
def test_each_byte_once_in_torchs_own_order_and_most_of_it_ahead(running, nodes, ranks):
    cluster = running(nodes, some_files())
    results = train(cluster, ranks, epochs=2, step_seconds=0.04)
    check(results, cluster.files)
    assert cluster.origin.sent_bytes == cluster.bytes
    assert planned_bytes(cluster) > 0.5 * cluster.bytes
    assert {result["state"] for result in results} == {"kept"}
    assert plans(cluster) == []  # all trainers are gone
    assert "Traceback" not in cluster.logs()
