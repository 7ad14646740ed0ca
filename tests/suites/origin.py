"""What every origin must do. Inherit OriginSuite, give `place`: a mount point and a way to write.

The file system or server below is the real one; `place.put` reaches it around the origin.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from cache_worker.origins import Origin, OriginObject, open_origin
from cacheop.api.dataset import Mount
from cacheop.api.errors import NotFoundError, OriginChanged, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path


@dataclass(frozen=True)
class Place:
    """Where the objects of one test are."""

    mount_point: str
    options: dict[str, Any]
    put: Callable[[str, bytes], None]
    delete: Callable[[str], None]


def content(seed: int, size_bytes: int) -> bytes:
    """Bytes that differ everywhere and between seeds."""
    return hashlib.shake_128(str(seed).encode()).digest(size_bytes)


def digest(data: Any) -> str:
    return hashlib.sha256(memoryview(data)).hexdigest()


def listed(origin: Origin) -> dict[str, OriginObject]:
    """Everything that `origin` lists, by key."""
    found = {}
    for batch in origin.list_objects():
        columns = (batch.keys, batch.sizes, batch.etags, batch.version_ids, batch.mtimes_ns)
        for row in zip(*map(plain, columns), strict=True):
            assert row[0] not in found
            found[row[0]] = OriginObject(*row)
    return found


def plain(column: Any) -> Any:
    """A column of a listing as Python values, whether it is an Arrow array or not."""
    return column.to_pylist() if hasattr(column, "to_pylist") else column


class OriginSuite:
    """Every origin inherits these tests."""

    lists_empty_directories = False
    tells_of_pieces = False

    @pytest.fixture
    def place(self) -> Place:
        raise NotImplementedError

    def open(self, place: Place, tmp_path: Path, mount_point: str = "") -> Origin:
        return open_origin(Mount(mount_point or place.mount_point, options=place.options), tmp_path)

    def run(
        self, place: Place, tmp_path: Path, use: Callable[[Origin], Coroutine[Any, Any, Any]]
    ) -> Any:
        async def body() -> Any:
            origin = self.open(place, tmp_path)
            try:
                return await use(origin)
            finally:
                await origin.close()

        return asyncio.run(body())

    def listed(self, place: Place, tmp_path: Path, mount_point: str = "") -> dict[str, Any]:
        return listed(self.open(place, tmp_path, mount_point))

    def test_lists_what_is_there(self, place: Place, tmp_path: Path) -> None:
        files = {"a.bin": 10, "deep/er/b c.bin": 2000, "deep/ü+&.bin": 1, "empty": 0}
        for seed, (key, size) in enumerate(files.items()):
            place.put(key, content(seed, size))
        found = self.listed(place, tmp_path)
        assert {key: obj.size_bytes for key, obj in found.items()} == files
        assert all(obj.etag or obj.mtime_ns for obj in found.values())

    def test_every_range_is_right(self, place: Place, tmp_path: Path) -> None:
        data = content(1, 300_001)
        place.put("dir/big file.bin", data)
        obj = self.listed(place, tmp_path)["dir/big file.bin"]

        async def use(origin: Origin) -> None:
            for offset, length in ((0, 300_001), (0, 1), (300_000, 1), (1000, 200_000), (5, 0)):
                body = await origin.fetch(obj, offset, length)
                assert len(memoryview(body)) == length
                assert digest(body) == digest(data[offset : offset + length])

        self.run(place, tmp_path, use)

    def test_pieces_that_are_told_of_early_are_right(self, place: Place, tmp_path: Path) -> None:
        data = content(2, 3_000_001)
        place.put("big.bin", data)
        obj = self.listed(place, tmp_path)["big.bin"]
        span = data[1000:2_501_000]

        async def use(origin: Origin) -> int:
            told: list[tuple[int, int]] = []

            def arrived(offset: int, piece: memoryview) -> None:
                assert digest(piece) == digest(span[offset : offset + len(piece)])
                told.append((offset, len(piece)))

            body = await origin.fetch(obj, 1000, len(span), arrived)
            assert digest(body) == digest(span)
            ends = [0, *(offset + length for offset, length in told)]
            assert [offset for offset, _ in told] == ends[:-1]
            return ends[-1]

        # All of it, or nothing where the content has no name or comes in one piece.
        expected = len(span) if self.tells_of_pieces and obj.etag else 0
        assert self.run(place, tmp_path, use) == expected

    def test_many_reads_at_once(self, place: Place, tmp_path: Path) -> None:
        data = {f"f{n:02}": content(n, 20_000 + n) for n in range(24)}
        for key, value in data.items():
            place.put(key, value)
        objects = self.listed(place, tmp_path)

        async def use(origin: Origin) -> None:
            bodies = await asyncio.gather(
                *(origin.fetch(objects[key], 0, len(value)) for key, value in data.items())
            )
            assert [digest(b) for b in bodies] == [digest(v) for v in data.values()]

        self.run(place, tmp_path, use)

    def test_a_sibling_with_the_same_beginning_is_not_in(
        self, place: Place, tmp_path: Path
    ) -> None:
        place.put("pre/a", b"in")
        place.put("prefix/b", b"out")
        assert list(self.listed(place, tmp_path, place.mount_point + "pre/")) == ["a"]

    def test_one_object(self, place: Place, tmp_path: Path) -> None:
        place.put("dir/only one.bin", b"the one")
        mount_point = place.mount_point + "dir/only one.bin"
        found = self.listed(place, tmp_path, mount_point)
        assert list(found) == ["only one.bin"]

        async def body() -> None:
            origin = self.open(place, tmp_path, mount_point)
            try:
                await origin.check()
                assert bytes(await origin.fetch(found["only one.bin"], 4, 3)) == b"one"
            finally:
                await origin.close()

        asyncio.run(body())

    def test_an_object_of_another_size_is_refused(self, place: Place, tmp_path: Path) -> None:
        place.put("x", content(1, 1000))
        obj = self.listed(place, tmp_path)["x"]
        place.put("x", content(2, 999))
        self._refused(place, tmp_path, obj)

    def test_an_object_of_the_same_size_is_refused(self, place: Place, tmp_path: Path) -> None:
        place.put("x", content(1, 1000))
        obj = self.listed(place, tmp_path)["x"]
        self.let_the_clock_move()
        place.put("x", content(2, 1000))
        self._refused(place, tmp_path, obj)

    def let_the_clock_move(self) -> None:
        """Before a change of an object that only its time shows."""

    def test_a_deleted_object_is_refused(self, place: Place, tmp_path: Path) -> None:
        place.put("x", b"1234")
        place.put("y", b"stays")
        obj = self.listed(place, tmp_path)["x"]
        place.delete("x")
        self._refused(place, tmp_path, obj)

    def _refused(self, place: Place, tmp_path: Path, obj: OriginObject) -> None:
        async def use(origin: Origin) -> None:
            with pytest.raises(OriginChanged, match="no longer the object in the manifest") as told:
                await origin.fetch(obj, 0, obj.size_bytes)
            assert repr(obj.key) in str(told.value)
            assert "cacheop refresh" in told.value.hint

        self.run(place, tmp_path, use)

    def test_check(self, place: Place, tmp_path: Path) -> None:
        place.put("x", b"1")
        self.run(place, tmp_path, lambda origin: origin.check())

    def test_check_of_a_place_that_is_not_there(self, place: Place, tmp_path: Path) -> None:
        async def body() -> None:
            origin = self.open(place, tmp_path, place.mount_point + "not/there/")
            try:
                with pytest.raises((UserError, NotFoundError)) as told:
                    await origin.check()
                assert "not/there" in str(told.value)
            finally:
                await origin.close()

        place.put("x", b"1")
        asyncio.run(body())
