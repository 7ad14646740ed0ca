"""`cached_dataset`: a Dataset that libraries read through cacheop://, from a real worker.

Every test that asks for it runs twice: over an empty cache and over a full one.
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
from cacheop.api.chunk import CHUNK_BYTES
from tests.fakes.running_worker import RunningWorker

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
def serve(files: Mapping[str, bytes], directory: Path) -> Iterator[RunningWorker]:
    """A worker of the Dataset `data` over a directory with `files`."""
    origin = directory / "origin"
    for path, data in files.items():
        (origin / path).parent.mkdir(parents=True, exist_ok=True)
        (origin / path).write_bytes(data)
    with RunningWorker(directory / "worker", [{"mountPoint": f"file://{origin}"}]) as running:
        yield running


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


@pytest.fixture(params=["cold", "warm"])
def cached_dataset(
    request: pytest.FixtureRequest,
    dataset_files: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[CachedData]:
    from cacheop.client.filesystem import CacheopFileSystem

    for name in (names.ENV_MOUNT, names.ENV_ENDPOINT):
        monkeypatch.delenv(name, raising=False)
    CacheopFileSystem.clear_instance_cache()
    with serve(dataset_files, tmp_path) as running:
        monkeypatch.setenv(names.ENV_CACHE, str(running.root))
        if request.param == "warm":
            running.call("load", paths=[])

        def evict(path: str) -> None:
            running.call("evict", paths=[path])

        yield CachedData("cacheop://data", dataset_files, running.root, evict)
        for instance in list(CacheopFileSystem._cache.values()):
            instance.invalidate_cache()
    CacheopFileSystem.clear_instance_cache()
