"""`python -m tests.fakes.trainer JSON`: one rank of a training job, real torch, a step that sleeps.

Prints one JSON object: what it read, in which order, and what it waited for.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Job:
    root: str
    """The cache directory of the rank's node."""
    paths: list[str]
    epochs: int = 1
    rank: int = 0
    ranks: int = 1
    port: int = 0
    """Of gloo's store, for more than one rank."""
    batch: int = 8
    processes: int = 2
    seed: int = 0
    step_seconds: float = 0.0
    planned: bool = True
    lies: bool = False
    """Reads other files than its sampler says."""
    cut: int = 0
    """Each epoch but the last ends after so many batches."""
    dies_after: int = 0
    """Batches; then it kills itself."""
    version: str = ""
    """The plan is told for this version, the reads are of the current one."""
    job: str = ""
    data: dict[str, Any] = field(default_factory=dict)


def main(job: Job) -> dict[str, Any]:
    import torch
    from torch import distributed
    from torch.utils.data import DataLoader, DistributedSampler

    from cacheop.torch import CacheDataset, PlannedSampler

    torch.set_num_threads(1)
    os.environ["CACHEOP_CACHE"] = job.root
    if job.job:
        os.environ["CACHEOP_READER"] = job.job
    if job.ranks > 1:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(job.port)}
        distributed.init_process_group("gloo", rank=job.rank, world_size=job.ranks)

    def digest(data: bytes, path: str) -> tuple[str, str]:
        return path, hashlib.sha256(data).hexdigest()

    paths = [f"data/{path}" for path in job.paths]
    read = list(reversed(paths)) if job.lies else paths
    dataset = CacheDataset(read, digest)
    sampler: Any = DistributedSampler(
        dataset, num_replicas=job.ranks, rank=job.rank, seed=job.seed, drop_last=False
    )
    plain = sampler
    if job.planned:
        told = [p.replace("data/", f"data@{job.version}/", 1) for p in paths]
        sampler = PlannedSampler(sampler, told if job.version else paths)
    loader = DataLoader(
        dataset,
        batch_size=job.batch,
        sampler=sampler,
        num_workers=job.processes,
        collate_fn=list,
        timeout=60 if job.processes else 0,
        multiprocessing_context="fork" if job.processes else None,
    )
    epochs = []
    for number in range(job.epochs):
        plain.set_epoch(number)
        epochs.append(_epoch(job, loader, cut=job.cut if number < job.epochs - 1 else 0))
    state = sampler.state if job.planned else ""
    if job.ranks > 1 and not job.dies_after:
        distributed.destroy_process_group()
    return {"epochs": epochs, "state": state}


def _epoch(job: Job, loader: Any, cut: int) -> dict[str, Any]:
    found: list[tuple[str, str]] = []
    waited, began, batches = 0.0, time.perf_counter(), iter(loader)
    for number in range(1 << 30):
        before = time.perf_counter()
        batch = next(batches, None)
        waited += time.perf_counter() - before
        if batch is None or (cut and number == cut):
            break
        found += batch
        time.sleep(job.step_seconds)
        if job.dies_after and number + 1 == job.dies_after:
            sys.stdout.flush()
            os.kill(os.getpid(), 9)
    wall = time.perf_counter() - began
    return {"read": found, "wait_seconds": waited, "wall_seconds": wall}


def command(job: Job) -> list[str]:
    """How to start it."""
    return [sys.executable, "-m", "tests.fakes.trainer", json.dumps(asdict(job))]


if __name__ == "__main__":
    result = main(Job(**json.loads(sys.argv[1])))
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()
    os._exit(0)
