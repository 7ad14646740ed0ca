"""Many processes read at the same time: DataLoader workers by fork and by spawn."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import threading
import time
from typing import TYPE_CHECKING

import fsspec
import pytest

if TYPE_CHECKING:
    from tests.node.client.conftest import CachedData

pytestmark = pytest.mark.node


def checksum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Checksums:
    """A map-style dataset that keeps its file system, as people write them."""

    def __init__(self, paths: list[str]) -> None:
        self.fs = fsspec.filesystem("cacheop")
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> tuple[str, str, int]:
        path = self.paths[number]
        data = self.fs.cat_file(path)
        with self.fs.open(path) as file:
            assert file.read() == data
        return path, checksum(data), os.getpid()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "used_before"), [("fork", False), ("fork", True), ("spawn", True)]
)
def test_data_loader(cached_dataset: CachedData, method: str, used_before: bool) -> None:
    torch_data = pytest.importorskip("torch.utils.data")
    paths = [f"data/{path}" for path in cached_dataset.files if path.startswith("images/")]
    data = Checksums(paths)
    if used_before:  # the parent holds sockets and has half of the files read
        data.fs.cat(paths[::2])
    loader = torch_data.DataLoader(
        data, batch_size=None, num_workers=2, multiprocessing_context=method, timeout=90
    )
    found = list(loader)
    assert {path: digest for path, digest, _ in found} == {
        path: checksum(cached_dataset.files[path.removeprefix("data/")]) for path in paths
    }
    assert os.getpid() not in {pid for _, _, pid in found}
    assert data.fs.cat_file(paths[1]) == cached_dataset.files[paths[1].removeprefix("data/")]


def _read_all(fs: object, paths: list[str], queue: object) -> None:
    queue.put({path: checksum(fs.cat_file(path)) for path in paths})


def test_fork_while_other_threads_read(cached_dataset: CachedData) -> None:
    """The child must not wait for a lock or an answer that only the parent's threads know."""
    fs = fsspec.filesystem("cacheop")
    paths = [f"data/{path}" for path in cached_dataset.files if path.startswith("images/")]
    expected = {p: checksum(cached_dataset.files[p.removeprefix("data/")]) for p in paths}
    stop = threading.Event()
    wrong: list[str] = []

    def read() -> None:
        while not stop.is_set():
            for path in paths:
                cached_dataset.evict(path.removeprefix("data/"))
                if checksum(fs.cat_file(path)) != expected[path]:
                    wrong.append(path)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    context = multiprocessing.get_context("fork")
    try:
        for _ in range(5):
            queue = context.Queue()
            child = context.Process(target=_read_all, args=(fs, paths, queue))
            child.start()
            assert queue.get(timeout=30) == expected
            child.join(30)
            assert child.exitcode == 0
            time.sleep(0.02)
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    assert wrong == []
