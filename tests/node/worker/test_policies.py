"""Auto in a real worker, read by real clients: as many bytes from the origin as simulated."""

import hashlib
import os
import random
import subprocess
import sys
from array import array

import pytest

from cache_worker.eviction.auto import Auto
from cache_worker.simulation.replay import replay
from cache_worker.simulation.trace import Trace
from tests.fakes.running_worker import RunningWorker, s3_mount

pytestmark = pytest.mark.node

FILES, EPOCHS = 400, 5
HIGH = 0.95
WITHIN = 0.05

# Loader processes are forks of the trainer, each with connections of its own; every epoch each file
# is read once, by one of them.
_TRAINER = """
import hashlib, json, os, random, sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
root, seed, epochs, processes = sys.argv[1], *map(int, sys.argv[2:5])
from cacheop.client.filesystem import CacheopFileSystem
filesystem = CacheopFileSystem(cache=root, skip_instance_cache=True)

def read(path):
    return hashlib.sha256(filesystem.cat_file(path)).hexdigest()

dice, found = random.Random(seed), {}
paths = sorted(filesystem.find("data"))
with ProcessPoolExecutor(processes, get_context("fork")) as pool:
    for _ in range(epochs):
        dice.shuffle(paths)
        for path, digest in zip(paths, pool.map(read, paths, chunksize=1)):
            assert found.setdefault(path, digest) == digest
print(json.dumps(found), flush=True)
os._exit(0)
"""


@pytest.fixture
def objects():
    source = random.Random(3)
    return {f"d{i % 4}/f{i:04}": source.randbytes(8_000 + 10 * i) for i in range(FILES)}


@pytest.fixture
def worker(s3, bucket, objects, tmp_path):
    name, folder = bucket(), tmp_path / "upload"
    for path, data in objects.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    s3.upload(name, folder)
    quota = int(sum(map(len, objects.values())) / 2 / HIGH)
    spec = {"cache": {"tiers": [{"medium": "Disk", "quota": quota, "high": HIGH}]}}
    with RunningWorker(tmp_path / "node", [s3_mount(s3.endpoint, name)], spec=spec) as running:
        yield running


def train(worker, *, seed, epochs=EPOCHS, processes=4):
    """A trainer with so many loader processes, in a process group of its own."""
    arguments = [str(worker.root), str(seed), str(epochs), str(processes)]
    return subprocess.Popen(
        [sys.executable, "-c", _TRAINER, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def result(trainer, objects):
    import json

    out, _ = trainer.communicate(timeout=100)
    assert trainer.returncode == 0
    found = json.loads(out)
    assert found == {
        f"data/{path}": hashlib.sha256(data).hexdigest() for path, data in objects.items()
    }


def simulated(objects, seeds, worker_quota):
    """Bytes that the same reads take from the origin, in the simulator."""
    paths = sorted(objects)
    lengths = [len(objects[path]) for path in paths]
    orders = []
    for seed in seeds:
        dice, order, reads = random.Random(seed), list(range(FILES)), array("I")
        for _ in range(EPOCHS):
            dice.shuffle(order)
            reads.extend(order)
        orders.append(reads)
    streams = [job for _ in range(EPOCHS * FILES) for job in range(len(orders))]
    slots = [order[at] for at in range(EPOCHS * FILES) for order in orders]
    trace = Trace("epochs", streams, slots, (range(FILES),), lengths=lengths)
    return replay(trace, Auto(), int(worker_quota * HIGH)).origin_bytes


def test_epochs_take_from_the_origin_what_the_simulator_says(worker, objects):
    result(train(worker, seed=1), objects)
    status = worker.status()
    expected = simulated(objects, [1], status["quota_bytes"])
    assert status["origin_bytes"] == pytest.approx(expected, rel=WITHIN)
    # Never half a Dataset for nothing: the first epoch takes all, each other one half.
    assert status["origin_bytes"] <= (1 + (EPOCHS - 1) * 0.56) * status["bytes_total"]


def test_two_jobs_feed_each_other(worker, objects):
    trainers = [train(worker, seed=seed, processes=2) for seed in (1, 2)]
    for trainer in trainers:
        result(trainer, objects)
    total = worker.status()["bytes_total"]
    # Alone each would take 1 + 4 / 2 Datasets. What one misses is kept for the other that needs it.
    assert worker.status()["origin_bytes"] < 0.95 * 2 * 3 * total


def test_a_worker_that_starts_again_keeps_what_it_has(worker, objects):
    result(train(worker, seed=1, epochs=2), objects)
    worker.stop()
    worker.start()
    result(train(worker, seed=2, epochs=2), objects)
    status = worker.status()
    assert status["origin_bytes"] <= (1 + 0.56 + 2 * 0.56) * status["bytes_total"]
    assert os.path.exists(worker.root)
