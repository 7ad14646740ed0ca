"""Listings come from the index: no round trips, fsspec's conventions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from cacheop import local
from cacheop.api.index import Index
from cacheop.client.tree import Tree
from tests.fakes.worker import FakeWorker, build_index
from tests.unit.client.conftest import FILES

if TYPE_CHECKING:
    from pathlib import Path

    from cacheop.client.filesystem import CacheopFileSystem


def test_listings(worker: FakeWorker, fs: CacheopFileSystem) -> None:
    assert fs.ls("demo", detail=False) == [
        "demo/big.bin", "demo/empty", "demo/odd name", "demo/train", "demo/train-extra",
    ]  # fmt: skip
    assert fs.ls("cacheop://demo/train/", detail=False) == ["demo/train/a", "demo/train/b"]
    assert fs.ls("demo/empty", detail=False) == ["demo/empty"]
    assert [entry["type"] for entry in fs.ls("demo/train")] == ["directory"] * 2
    assert fs.find("demo") == sorted(f"demo/{path}" for path in FILES)
    assert fs.find("demo/train/a/1.jpg") == ["demo/train/a/1.jpg"]
    assert fs.find("demo/nowhere") == []
    assert fs.find("demo", maxdepth=1) == ["demo/big.bin", "demo/empty"]
    assert fs.find("demo/train", withdirs=True, maxdepth=1) == [
        "demo/train", "demo/train/a", "demo/train/b",
    ]  # fmt: skip
    assert fs.find("demo", detail=True)["demo/empty"]["size"] == 0
    assert fs.glob("demo/train/**/*.jpg") == sorted(
        f"demo/{path}" for path in FILES if path.startswith("train/")
    )
    assert [len(files) for _, _, files in fs.walk("demo")] == [2, 1, 0, 2, 1, 1]
    assert fs.du("demo") == sum(map(len, FILES.values()))
    assert fs.expand_path("demo/odd name/ü [x].txt") == ["demo/odd name/ü [x].txt"]
    assert {request["op"] for request in worker.requests} <= {"bind", "hello"}


def test_info(fs: CacheopFileSystem) -> None:
    info = fs.info("demo/train/a/1.jpg")
    assert info["name"] == "demo/train/a/1.jpg"
    assert (info["size"], info["type"]) == (3000, "file")
    assert info["ETag"].startswith('"3000-')
    assert "VersionId" not in info  # unknown is left out
    assert fs.info("demo")["type"] == "directory"
    assert fs.modified("demo/empty") == fs.created("demo/empty")
    assert fs.modified("demo/empty") == datetime.fromtimestamp(1_700_000_000, UTC)
    assert fs.size("demo/big.bin") == len(FILES["big.bin"])
    assert fs.isdir("demo/train")
    assert not fs.isdir("demo/trai")
    assert fs.exists("demo")


def test_keys_follow_the_content(worker: FakeWorker, fs: CacheopFileSystem) -> None:
    before = fs.ukey("demo/empty"), fs.ukey("demo/train/a/1.jpg"), fs.checksum("demo/big.bin")
    worker.add_version({**FILES, "train/a/1.jpg": b"new"})
    fs.invalidate_cache()
    assert fs.ukey("demo/empty") == before[0]
    assert fs.ukey("demo/train/a/1.jpg") != before[1]
    assert fs.checksum("demo/big.bin") == before[2]


def test_a_version_stays_until_it_is_let_go(worker: FakeWorker, fs: CacheopFileSystem) -> None:
    old = worker.version
    assert fs.cat_file("demo/train-extra/4.jpg") == b"four"
    worker.add_version({**FILES, "train-extra/4.jpg": b"5"})
    assert fs.cat_file("demo/train-extra/4.jpg") == b"four"
    assert old in worker.bound_versions()
    fs.invalidate_cache()
    assert fs.cat_file("demo/train-extra/4.jpg") == b"5"
    assert fs.cat_file(f"demo@{old}/train-extra/4.jpg") == b"four"
    with pytest.raises(FileNotFoundError, match="no version ff"):
        fs.exists("demo@ff/x") or fs.cat_file("demo@ff/x")


def test_the_top_lists_what_runs_here(fs: CacheopFileSystem, tmp_path: Path) -> None:
    assert fs.ls("") == []
    run = tmp_path / "run"
    run.mkdir()
    local.write(local.RunRecord("vision", "imagenet", "", (), "", 0.0, run))
    assert fs.ls("cacheop://", detail=False) == ["imagenet.vision"]


def test_resolving_forgets_directories_but_not_the_right_answer() -> None:
    files = {f"d{number:04d}/x": b"" for number in range(6000)}
    tree = Tree(Index(build_index(files)))
    for path in files:
        row, real = tree.file(path)
        assert tree.index.path(row) == real == path
    assert len(tree._directories) <= 4096
    assert tree.file("d0000//x") == tree.file("d0000/x")
