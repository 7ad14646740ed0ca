"""`cached_dataset`: a Dataset that libraries read through cacheop://, from a worker of either kind.

To run these against the real worker, replace `serve`: it gets {path: bytes} and gives the cache
directory of a running worker that serves them as the Dataset `demo`.
"""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest

from cacheop.api import names
from tests.fakes.worker import CHUNK_BYTES, FakeWorker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class CachedData:
    """`url` + "/" + a path of `files` is what to read; `cache` is the worker's directory."""

    url: str
    files: Mapping[str, bytes]
    cache: Path
    evict: Callable[[str], None]


@contextlib.contextmanager
def serve(files: Mapping[str, bytes], root: Path) -> Iterator[FakeWorker]:
    with FakeWorker(root, files) as worker:
        yield worker


def _parquet(rows: int, start: int) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = io.BytesIO()
    numbers = np.arange(start, start + rows)
    text = [f"row {number}" for number in numbers]
    pq.write_table(pa.table({"number": numbers, "text": text}), out, row_group_size=1000)
    return out.getvalue()


def _shard(first: int) -> bytes:
    import tarfile

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for number in range(first, first + 10):
            for kind, data in (("cls", str(number).encode()), ("bin", bytes([number]) * 1000)):
                member = tarfile.TarInfo(f"{number:04d}.{kind}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def _zarr(path: Path) -> dict[str, bytes]:
    import zarr

    array = zarr.create_array(
        store=str(path), shape=(100, 100), chunks=(25, 25), dtype="i4", compressors=None
    )
    array[:] = np.arange(10_000, dtype="i4").reshape(100, 100)
    files = sorted(p for p in path.rglob("*") if p.is_file())
    return {f"array.zarr/{p.relative_to(path)}": p.read_bytes() for p in files}


@pytest.fixture(scope="session")
def dataset_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    noise = np.random.default_rng(3)
    files = {f"images/{i % 4}/{i:03d}.bin": noise.bytes(5000 + i) for i in range(64)}
    files |= {f"tables/part-{i}.parquet": _parquet(5000, i * 5000) for i in range(3)}
    files |= {f"shards/{i:03d}.tar": _shard(i * 10) for i in range(3)}
    files |= _zarr(tmp_path_factory.mktemp("zarr") / "array.zarr")
    files["model/config.json"] = json.dumps({"hidden": 4}).encode()
    files["model/model-00001-of-00002.safetensors"] = noise.bytes(CHUNK_BYTES + 4321)
    files["model/model-00002-of-00002.safetensors"] = noise.bytes(1000)
    return files


@pytest.fixture
def cached_dataset(
    dataset_files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[CachedData]:
    from cacheop.client.filesystem import CacheopFileSystem

    monkeypatch.setenv(names.ENV_CACHE, str(tmp_path / "cache"))
    for name in (names.ENV_MOUNT, names.ENV_ENDPOINT):
        monkeypatch.delenv(name, raising=False)
    CacheopFileSystem.clear_instance_cache()
    with serve(dataset_files, tmp_path / "cache") as worker:
        yield CachedData("cacheop://demo", dataset_files, worker.root, worker.evict)
    for instance in list(CacheopFileSystem._cache.values()):
        instance.invalidate_cache()
    CacheopFileSystem.clear_instance_cache()
