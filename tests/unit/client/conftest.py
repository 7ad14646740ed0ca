from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from cacheop.api import names
from cacheop.client.filesystem import CacheopFileSystem
from tests.fakes.worker import CHUNK_BYTES, FakeWorker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILES = {
    "train/a/1.jpg": b"one" * 1000,
    "train/a/2.jpg": b"two" * 2000,
    "train/b/3.jpg": b"three" * 3000,
    "train-extra/4.jpg": b"four",
    "empty": b"",
    "odd name/ü [x].txt": b"odd",
    "big.bin": random.Random(7).randbytes(2 * CHUNK_BYTES + 12345),
}


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (names.ENV_MOUNT, names.ENV_CACHE, names.ENV_ENDPOINT, names.ENV_TOKEN):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(names.ENV_RUN_DIR, str(tmp_path / "run"))


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[FakeWorker]:
    with FakeWorker(tmp_path / "cache", FILES, token="hush") as fake:
        yield fake


@pytest.fixture
def fs(worker: FakeWorker) -> Iterator[CacheopFileSystem]:
    instance = CacheopFileSystem(cache=str(worker.root), skip_instance_cache=True)
    yield instance
    instance.invalidate_cache()


@pytest.fixture
def remote(worker: FakeWorker) -> Iterator[CacheopFileSystem]:
    """The same, from another machine."""
    instance = CacheopFileSystem(endpoint=worker.endpoint, token="hush", skip_instance_cache=True)
    yield instance
    instance.invalidate_cache()
