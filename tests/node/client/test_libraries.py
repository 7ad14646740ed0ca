"""Libraries that people train with, reading through cacheop://."""

from __future__ import annotations

import json
import mmap
from typing import TYPE_CHECKING

import fsspec
import numpy as np
import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.node.client.conftest import CachedData

pytestmark = pytest.mark.node


def test_pandas(cached_dataset: CachedData) -> None:
    import pandas as pd

    frame = pd.read_parquet(f"{cached_dataset.url}/tables/part-1.parquet")
    assert frame["number"].tolist() == list(range(5000, 10_000))
    whole = pd.read_parquet(f"{cached_dataset.url}/tables")
    assert len(whole) == 15_000


def test_pyarrow_dataset(cached_dataset: CachedData) -> None:
    import pyarrow.dataset as ds
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    fs = PyFileSystem(FSSpecHandler(fsspec.filesystem("cacheop")))
    data = ds.dataset("data/tables", filesystem=fs, format="parquet")
    found = data.to_table(filter=ds.field("number") >= 14_990, columns=["text"])
    assert found["text"].to_pylist() == [f"row {n}" for n in range(14_990, 15_000)]


@pytest.mark.slow
def test_hugging_face_datasets(
    cached_dataset: CachedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not HF_HUB_OFFLINE: that forbids every URL, ours too.
    monkeypatch.setenv("HF_UPDATE_DOWNLOAD_COUNTS", "0")
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    import datasets

    files = [f"{cached_dataset.url}/tables/part-{i}.parquet" for i in range(3)]
    streamed = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)
    assert [row["number"] for row, _ in zip(streamed, range(10), strict=False)] == list(range(10))
    prepared = datasets.load_dataset(
        "parquet", data_files=files, split="train", cache_dir=str(tmp_path / "prepared")
    )
    assert len(prepared) == 15_000
    assert prepared[14_999]["text"] == "row 14999"


def test_a_folder_as_from_pretrained_reads_it(cached_dataset: CachedData, tmp_path: Path) -> None:
    fs = fsspec.filesystem("cacheop")
    with fs.open("data/model/config.json", "r") as file:
        assert json.load(file) == {"hidden": 4}
    fs.get("data/model/", str(tmp_path / "model"), recursive=True)
    for path in fs.find("data/model"):
        name = path.removeprefix("data/")
        expected = cached_dataset.files[name]
        assert (tmp_path / name).read_bytes() == expected
        with (
            fs.open(path) as file,
            mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped,
        ):
            assert mapped[:] == expected  # as safetensors does


def test_webdataset(cached_dataset: CachedData) -> None:
    import webdataset as wds
    from webdataset.gopen import gopen_schemes

    def opened(url: str, mode: str = "rb", bufsize: int = 8192, **_: object) -> object:
        return fsspec.open(url, mode).open()

    gopen_schemes["cacheop"] = opened
    try:
        urls = [f"{cached_dataset.url}/shards/{i:03d}.tar" for i in range(3)]
        samples = list(wds.WebDataset(urls, shardshuffle=False, empty_check=False))
    finally:
        del gopen_schemes["cacheop"]
    assert [int(sample["cls"]) for sample in samples] == list(range(30))
    assert all(sample["bin"] == bytes([n]) * 1000 for n, sample in enumerate(samples))


def test_zarr(cached_dataset: CachedData) -> None:
    import zarr
    from zarr.storage import FsspecStore

    expected = np.arange(10_000, dtype="i4").reshape(100, 100)
    store = FsspecStore.from_url(f"{cached_dataset.url}/array.zarr", read_only=True)
    np.testing.assert_array_equal(zarr.open_array(store, mode="r")[:], expected)
    fs = fsspec.filesystem("cacheop", asynchronous=True)
    store = FsspecStore(fs, read_only=True, path="data/array.zarr")
    np.testing.assert_array_equal(zarr.open_array(store, mode="r")[10:60, 5], expected[10:60, 5])
    mapper = fsspec.get_mapper(f"{cached_dataset.url}/array.zarr")
    assert set(mapper) == {
        p.removeprefix("array.zarr/") for p in cached_dataset.files if p.startswith("array.zarr/")
    }


def test_numpy_memmap(cached_dataset: CachedData) -> None:
    with fsspec.filesystem("cacheop").open("data/images/0/000.bin") as file:
        mapped = np.memmap(file, dtype="u1", mode="r")
        assert mapped.tobytes() == cached_dataset.files["images/0/000.bin"]
