"""Real torch over real workers: what a plan does, and that a bad one does no harm."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.running_cluster import RunningCluster, free_ports
from tests.fakes.running_node import wait_for
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


def test_a_rank_that_dies_takes_its_plan_with_it(running):
    cluster = running(1, some_files())
    dying = start(job_of(cluster, seed=1, step_seconds=0.05, dies_after=6, job="one"))
    other = start(job_of(cluster, step_seconds=0.03, job="one"))
    dying.communicate(timeout=60)
    assert dying.returncode == -9
    result = finish([other])
    assert result[0]["state"] == "kept"
    wait_for(lambda: plans(cluster) == [], 15)
    before = planned_bytes(cluster)
    time.sleep(1)
    assert planned_bytes(cluster) == before
    assert "Traceback" not in cluster.logs()


def test_a_sampler_that_lies_costs_no_more_than_a_part_of_the_cache(running):
    files = some_files()
    quota = sum(map(len, files.values())) // 2
    tiers = [{"medium": "Disk", "quota": quota}]
    cluster = running(1, files, cache={"tiers": tiers})
    result = train(cluster, lies=True, step_seconds=0.01)[0]
    paths = sorted(files)
    expected = [paths[len(paths) - 1 - i] for i in order_of(1, 0, 0, len(paths))]
    assert [p.partition("/")[2] for p, _ in result["epochs"][0]["read"]] == expected
    for path, digest in result["epochs"][0]["read"]:
        assert digest == hashlib.sha256(files[path.partition("/")[2]]).hexdigest()
    assert cluster.origin.sent_bytes <= cluster.bytes + planned_bytes(cluster)


def test_epochs_cut_short_are_no_reason_to_stop(running):
    cluster = running(1, some_files())
    result = train(cluster, epochs=4, cut=10, step_seconds=0.03)[0]
    paths = sorted(cluster.files)
    for number, epoch in enumerate(result["epochs"]):
        order = order_of(1, 0, number, len(paths))
        count = len(order) if number == 3 else 80
        assert [p.partition("/")[2] for p, _ in epoch["read"]] == [paths[i] for i in order[:count]]
    assert result["state"] == "kept"
    assert cluster.origin.sent_bytes == cluster.bytes
    assert planned_bytes(cluster) > 0.3 * cluster.bytes


@pytest.mark.parametrize("there", [True, False])
def test_a_plan_for_another_version_harms_nobody(running, there):
    files = some_files()
    cluster = running(1, files)
    node = cluster.nodes[0]
    before = node.status()["version"]
    cluster.put({f"d0/f{0:04}": b"changed"})
    files |= {f"d0/f{0:04}": b"changed"}
    node.call("refresh")
    assert node.status()["version"] != before
    version = before if there else "0123abcd"
    result = train(cluster, step_seconds=0.02, version=version)
    check(result, files)
    assert result[0]["state"] in (("kept",) if there else ("away",))
    assert cluster.origin.sent_bytes <= 1.05 * cluster.bytes


def test_of_two_jobs_on_half_a_cache_each_is_fed_by_what_the_other_missed(running):
    files = some_files()
    total = sum(map(len, files.values()))
    tiers = [{"medium": "Disk", "quota": int(total / 2 / 0.95), "high": 0.95}]
    cluster = running(1, files, cache={"tiers": tiers})
    both = [start(job_of(cluster, epochs=4, seed=s, step_seconds=0.02)) for s in (1, 2)]
    results = finish(both)
    assert {result["state"] for result in results} == {"kept"}
    for result in results:
        for epoch in result["epochs"]:
            assert len({path for path, _ in epoch["read"]}) == FILES
            for path, digest in epoch["read"]:
                assert digest == hashlib.sha256(files[path.partition("/")[2]]).hexdigest()
    # Alone and without plans each would take 1 + 3 / 2 Datasets.
    assert cluster.origin.sent_bytes < 0.85 * 2 * 2.5 * total


def test_a_worker_that_starts_again_is_told_again(running):
    cluster = running(1, some_files())
    node = cluster.nodes[0]
    trainer = start(job_of(cluster, step_seconds=0.08))
    wait_for(lambda: planned_bytes(cluster) > 0, 60)
    node.kill()
    node.start()
    wait_for(lambda: plans(cluster), 20)
    wait_for(lambda: planned_bytes(cluster) > 0, 20)
    check(finish([trainer]), cluster.files)


def test_training_goes_on_where_no_plan_is_wanted(running):
    cluster = running(1, some_files(), prefetch={"mode": "Off"})
    results = train(cluster, step_seconds=0.01)
    check(results, cluster.files)
    assert results[0]["state"] == "off"
    assert planned_bytes(cluster) == 0
