"""The datasets of cacheop.torch and client.plan over a real worker."""

from __future__ import annotations

import hashlib
import io
import random
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fakes.running_cluster import RunningCluster
from tests.fakes.running_node import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

torch = pytest.importorskip("torch", reason="torch is not installed: ./dev test brings it")
pytestmark = [pytest.mark.node, pytest.mark.timeout(120)]

SHARDS, SAMPLES = 6, 40
ROOT = Path(__file__).parents[3]


def shard(number: int) -> bytes:
    dice, out = random.Random(number), io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for n in range(SAMPLES):
            for kind in ("jpg", "cls"):
                content = dice.randbytes(3000)
                info = tarfile.TarInfo(f"train/{number:02}{n:04}.{kind}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def expected() -> dict[str, tuple[bytes, bytes]]:
    found: dict[str, tuple[bytes, bytes]] = {}
    for number in range(SHARDS):
        dice = random.Random(number)
        for n in range(SAMPLES):
            found[f"train/{number:02}{n:04}"] = dice.randbytes(3000), dice.randbytes(3000)
    return found


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    files = {f"s/{n:03}.tar": shard(n) for n in range(SHARDS)}
    files |= {f"i/{n:03}": random.Random(n).randbytes(9000 + n) for n in range(300)}
    files["big"] = random.Random(1).randbytes(20 << 20)
    with RunningCluster(tmp_path_factory.mktemp("cluster"), files, 1) as cluster:
        cluster.start()
        yield cluster


@pytest.fixture
def node(cluster, monkeypatch):
    cluster.evict()
    cluster.origin.delay_seconds = 0.02
    monkeypatch.setenv("CACHEOP_CACHE", str(cluster.nodes[0].root))
    return cluster.nodes[0]


def fetched(node) -> float:
    return node.metric("cacheop_planned_bytes_total")


def test_files_by_number_are_the_origins(cluster, node):
    from cacheop.torch import CacheDataset

    dataset = CacheDataset("data/i", lambda data, path: (path, hashlib.sha256(data).hexdigest()))
    loader = torch.utils.data.DataLoader(dataset, batch_size=32, num_workers=2, collate_fn=list)
    found = dict(sample for batch in loader for sample in batch)
    assert found == {
        f"data/{path}": hashlib.sha256(data).hexdigest()
        for path, data in cluster.files.items()
        if path.startswith("i/")
    }
    assert dataset[3][0] == "data/i/003"


def test_a_missing_file_is_an_error_of_its_own(node):
    from cacheop.torch import CacheDataset

    dataset = CacheDataset(["data/i/000", "data/i/none"])
    with pytest.raises(FileNotFoundError):
        dataset.__getitems__([0, 1])


@pytest.mark.parametrize(("processes", "shuffle"), [(0, 0), (2, 0), (2, 50)])
def test_every_sample_of_the_shards_comes_once(node, processes, shuffle):
    from cacheop.torch import CacheShards

    dataset = CacheShards("data/s", shuffle=shuffle, seed=4)
    orders = []
    for epoch in range(2):
        dataset.set_epoch(epoch)
        loader = torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=processes)
        samples = list(loader)
        assert {s["__key__"]: (s["jpg"], s["cls"]) for s in samples} == expected()
        assert len(samples) == SHARDS * SAMPLES
        orders.append([s["__key__"] for s in samples])
    assert (orders[0] == orders[1]) == (not shuffle)


def test_shards_are_shared_among_ranks(node, monkeypatch):
    from cacheop.torch import CacheShards

    keys = []
    for rank in range(4):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "4")
        monkeypatch.setenv("CACHEOP_READER", "shards")
        keys += [s["__key__"] for s in CacheShards("data/s", shuffle=9)]
    assert sorted(keys) == sorted(expected())


def test_what_is_planned_is_there_before_it_is_read(node):
    from cacheop.client import plan
    from cacheop.client.filesystem import CacheopFileSystem

    files = CacheopFileSystem(cache=str(node.root), skip_instance_cache=True)
    paths = files.find("data/i")
    random.Random(3).shuffle(paths)
    before = fetched(node)
    with plan(paths) as told:
        assert told.wait_told()
        wait_for(lambda: fetched(node) - before > 60 * 9000, 20)
        for path in paths:
            files.cat_file(path)
            time.sleep(0.002)
        # The worker goes by what it hears: hits are told once a second.
        assert fetched(node) - before > 0.5 * sum(9000 + n for n in range(300))
        assert node.status()["plans"][0]["used"] > 64
    wait_for(lambda: not node.status()["plans"])


def test_a_part_of_a_big_file_can_be_planned(node):
    from cacheop.client import plan

    before = fetched(node)
    with plan([("data/big", 9 << 20, 10 << 20)]):
        wait_for(lambda: fetched(node) - before == 8 << 20, 20)
        time.sleep(0.3)
    assert fetched(node) - before == 8 << 20


def test_a_plan_ends_with_its_process(node):
    code = (
        "import cacheop.client as c, time, sys\n"
        "p = c.plan(['data/i/%03d' % n for n in range(300)])\n"
        "assert p.wait_told(); print('told', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "told\n"
    assert len(node.status()["plans"]) == 1
    process.kill()
    process.communicate()
    wait_for(lambda: not node.status()["plans"], 5)


def test_without_a_worker_there_is_a_warning_and_no_plan(tmp_path, monkeypatch, caplog):
    from cacheop.torch import PlannedSampler

    monkeypatch.setenv("CACHEOP_CACHE", str(tmp_path))
    sampler = PlannedSampler(range(10), [f"data/{n}" for n in range(10)])
    assert list(sampler) == list(range(10))
    wait_for(lambda: sampler.state == "away", 10)
    assert list(sampler) == list(range(10))
    assert "plan" in caplog.text
    sampler.close()


def test_the_demo_shows_both_ways(tmp_path):
    command = [sys.executable, "-W", "ignore", "-m", "examples.demo.planned", "--quick"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False
    )
    lines = [line for line in done.stdout.splitlines() if line.endswith("1.00 x")]
    assert [line.split("  ")[0].strip() for line in lines] == ["without", "with a plan"], done
    # What the waits are depends on how busy this machine is; the exit code says whether they hold.
    assert done.returncode == ("WRONG" in done.stderr)
