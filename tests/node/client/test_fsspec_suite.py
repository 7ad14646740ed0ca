"""fsspec's own suite, its read side. What it would write is there beforehand."""

from __future__ import annotations

from hashlib import md5
from typing import TYPE_CHECKING

import pytest
from fsspec.tests.abstract import AbstractFixtures, AbstractGetTests

from tests.node.client.conftest import serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cacheop.client.filesystem import CacheopFileSystem

pytestmark = pytest.mark.node


def _scenarios() -> dict[str, bytes]:
    bulk = ["file1", "file2", "subdir/subfile1", "subdir/subfile2", "subdir/nesteddir/nestedfile"]
    below = ["subfile1", "subfile2", "nesteddir/nestedfile"]
    edge = ["file1", "file2", *(f"subdir{i}/{name}" for i in range(2) for name in below)]
    files = {f"bulk/source/{name}": b"" for name in bulk}
    files |= {f"edge/source/{name}": b"" for name in edge}
    files |= {f"prefix/source/{name}": b"" for name in ("subdir.txt", "subdir/subfile.txt")}
    hashed = {i: md5(str(i).encode()).hexdigest() for i in range(10)}  # names as the suite's
    files |= {f"hashed/source/{name}.txt": str(i).encode() for i, name in hashed.items()}
    return files | {"src/file": b""}


class TestGet(AbstractGetTests, AbstractFixtures):
    @pytest.fixture
    def fs(self, tmp_path: Path) -> Iterator[CacheopFileSystem]:
        with serve(_scenarios(), tmp_path) as running:
            fs = running.filesystem()
            yield fs
            fs.invalidate_cache()

    @pytest.fixture
    def fs_path(self) -> str:
        return "data"

    @pytest.fixture
    def supports_empty_directories(self) -> bool:
        return False

    @pytest.fixture
    def fs_bulk_operations_scenario_0(self) -> str:
        return "data/bulk/source"

    @pytest.fixture
    def fs_glob_edge_cases_files(self) -> str:
        return "data/edge/source"

    @pytest.fixture
    def fs_dir_and_file_with_same_name_prefix(self) -> str:
        return "data/prefix/source"

    @pytest.fixture
    def fs_10_files_with_hashed_names(self) -> str:
        return "data/hashed/source"

    @pytest.mark.skip(reason="makes its source itself; test_get_a_directory does the same")
    def test_get_directory_recursive(self) -> None: ...

    def test_get_a_directory(self, fs, tmp_path: Path) -> None:
        """What the suite's test does, on a source that is there."""
        target = tmp_path / "target"
        for _ in range(2):  # into nothing: its contents; into a directory: itself
            fs.get("data/src", str(target), recursive=True)
            assert fs.find("data/src") == ["data/src/file"]
        assert sorted(str(p.relative_to(target)) for p in target.rglob("*") if p.is_file()) == [
            "file",
            "src/file",
        ]
