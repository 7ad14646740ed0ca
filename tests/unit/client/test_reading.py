"""What a reader gets, on the worker's machine and from another one."""

from __future__ import annotations

import asyncio
import errno
import io
import mmap
import os
import pickle
from typing import TYPE_CHECKING, Any

import fsspec
import pytest

from cacheop.api.errors import NotFoundError, OriginChanged, SuspendedError, WorkerUnavailable
from cacheop.client.filesystem import CacheopFileSystem
from tests.fakes.worker import CHUNK_BYTES
from tests.unit.client.conftest import FILES

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.worker import FakeWorker

BIG = FILES["big.bin"]


@pytest.fixture(params=["local", "remote"])
def any_fs(request: pytest.FixtureRequest) -> CacheopFileSystem:
    return request.getfixturevalue({"local": "fs", "remote": "remote"}[request.param])


def test_every_file_cold_then_warm(any_fs: CacheopFileSystem) -> None:
    for _ in range(2):
        for path, data in FILES.items():
            assert any_fs.cat_file(f"cacheop://demo/{path}") == data
            with any_fs.open(f"demo/{path}") as file:
                assert file.read() == data


def test_slices(any_fs: CacheopFileSystem) -> None:
    edge = CHUNK_BYTES
    spans = [(None, 5), (-7, None), (3, -4), (5, 2), (edge - 3, edge + 3), (len(BIG) + 5, None)]
    for start, end in spans:
        assert any_fs.cat_file("demo/big.bin", start, end) == BIG[start:end]


def test_no_room_in_the_cache(worker: FakeWorker, any_fs: CacheopFileSystem) -> None:
    worker.room = False
    for path, data in FILES.items():
        assert any_fs.cat_file(f"demo/{path}") == data
        with any_fs.open(f"demo/{path}") as file:
            assert file.read(10) == data[:10]
            assert file.read() == data[10:]


def test_dropped_again_before_we_read(worker: FakeWorker, fs: CacheopFileSystem) -> None:
    for times in (1, 3, 100):
        worker.evict_after_answers = times
        assert fs.cat_file("demo/train/a/1.jpg") == FILES["train/a/1.jpg"]
        assert fs.cat_file("demo/big.bin", 5, 100) == BIG[5:100]
        assert fs.cat_file("demo/big.bin") == BIG
        with fs.open("demo/train/a/2.jpg") as file:
            assert file.read() == FILES["train/a/2.jpg"]


def test_a_whole_file_is_a_real_one(worker: FakeWorker, fs: CacheopFileSystem) -> None:
    worker.fill_all()
    with fs.open("demo/big.bin") as file:
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            assert mapped[:] == BIG
        worker.evict("big.bin")
        assert file.read() == BIG  # who holds it keeps it
    assert worker.count("read") == 0
    with fs.open("demo/empty") as file:
        assert file.read() == b""
        assert file.fileno() > 0


def test_a_small_file_is_filled_before_it_is_opened(
    worker: FakeWorker, fs: CacheopFileSystem
) -> None:
    with fs.open("demo/train/a/1.jpg") as file:
        assert worker.is_complete("train/a/1.jpg")
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            assert mapped[:] == FILES["train/a/1.jpg"]


def test_a_big_file_that_is_not_whole(worker: FakeWorker, fs: CacheopFileSystem) -> None:
    with fs.open("demo/big.bin") as file:
        with pytest.raises(io.UnsupportedOperation):
            file.fileno()
        pieces = []
        while piece := file.read(1 << 20):
            pieces.append(piece)
        assert b"".join(pieces) == BIG
        assert worker.count("read") == 3  # one a chunk
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:  # it is whole now
            assert mapped[:] == BIG
        assert file.seek(-5, io.SEEK_END) == len(BIG) - 5
        assert file.read() == BIG[-5:]
        assert file.size == len(BIG)


def test_here_and_there_asks_for_no_more_than_it_needs(
    worker: FakeWorker, any_fs: CacheopFileSystem
) -> None:
    worker.room = False
    with any_fs.open("demo/big.bin") as file:
        file.seek(CHUNK_BYTES + 1000)
        assert file.read(8) == BIG[CHUNK_BYTES + 1000 :][:8]
    asked = [request["length"] for request in worker.requests if request["op"] == "read"]
    assert sum(asked) < 1 << 20


def test_a_chunk_dropped_and_filled_again_while_it_is_read(
    worker: FakeWorker, fs: CacheopFileSystem
) -> None:
    worker.fill("big.bin", 0)
    store = fs._at("demo/big.bin")[0].store
    row = store.index.resolve("big.bin")
    fd = os.open(worker.root / "data" / worker.version / "big.bin", os.O_RDONLY)
    assert store._read_proved(fd, row, 0, 100) == BIG[:100]
    worker.evict("big.bin")
    worker.fill("big.bin", 0)
    assert store._read_proved(fd, row, 0, 100) is None  # another file by now
    worker.fill("big.bin", 1, 2)
    assert not store._is_whole(fd, row)  # complete, but not this one
    os.close(fd)


def test_many_at_once(worker: FakeWorker, any_fs: CacheopFileSystem) -> None:
    paths = [f"demo/{path}" for path in FILES]
    found = any_fs.cat(paths)
    assert found == {f"demo/{path}": data for path, data in FILES.items()}
    assert any_fs.cat_ranges(paths, 1, 4) == [data[1:4] for data in FILES.values()]
    some = any_fs.cat_ranges(["demo/empty", "demo/nowhere", "demo/big.bin"], [0] * 3, [3] * 3)
    assert some[0] == b""
    assert isinstance(some[1], FileNotFoundError)
    assert some[2] == BIG[:3]
    with pytest.raises(FileNotFoundError):
        any_fs.cat_ranges(["demo/nowhere"], 0, 1, on_error="raise")
    with pytest.raises(ValueError, match="2 bounds for 1 paths"):
        any_fs.cat_ranges(["demo/empty"], [0, 1], [0])
    assert any_fs.cat("demo/train", recursive=True).keys() == {
        f"demo/{p}" for p in FILES if p.startswith("train/")
    }


def test_waits_of_many_are_one_wait(worker: FakeWorker, fs: CacheopFileSystem) -> None:
    """One connection, asked for all before the first answer is read."""
    fs.cat(["demo/train/a/1.jpg", "demo/train/a/2.jpg", "demo/train/b/3.jpg"])
    assert worker.count("read") == 3
    assert len(worker.bound_versions()) == 1


def test_errors_of_the_worker(worker: FakeWorker, fs: CacheopFileSystem) -> None:
    for error in (OriginChanged("changed", hint="h"), SuspendedError("no origin reads", hint="h")):
        worker.error = error
        with pytest.raises(type(error)) as caught:
            fs.cat_file("demo/big.bin")
        assert caught.value.errno == error.errno_code
        with pytest.raises(type(error)), fs.open("demo/big.bin") as file:
            file.read(5)
    worker.error = None
    assert fs.cat_file("demo/big.bin") == BIG


def test_what_is_not_there(any_fs: CacheopFileSystem) -> None:
    for path in ("demo/nowhere", "demo/train/a/../a/1.jpg", "demo/empty/x", "demo/train/a/9.jpg"):
        with pytest.raises(NotFoundError):
            any_fs.cat_file(path)
        assert not any_fs.exists(path)
        assert not any_fs.isfile(path)
    with pytest.raises(IsADirectoryError):
        any_fs.cat_file("demo/train/a")
    with pytest.raises(IsADirectoryError):
        any_fs.open("demo")


def test_nothing_writes(fs: CacheopFileSystem, tmp_path: Path) -> None:
    calls: list[Any] = [
        lambda: fs.open("demo/x", "wb"),
        lambda: fs.open("demo/empty", "r+b"),
        lambda: fs.pipe_file("demo/x", b""),
        lambda: fs.rm("demo/empty"),
        lambda: fs.mkdir("demo/x"),
        lambda: fs.touch("demo/x"),
        lambda: fs.mv("demo/empty", "demo/x"),
        lambda: asyncio.run(fs._pipe_file("demo/x", b"")),
    ]
    for call in calls:
        with pytest.raises(OSError, match="read-only") as caught:
            call()
        assert caught.value.errno == errno.EROFS


def test_text_and_compression(fs: CacheopFileSystem) -> None:
    with fs.open("demo/train-extra/4.jpg", "r") as file:
        assert file.read() == "four"
    assert fs.read_text("demo/train-extra/4.jpg") == "four"
    assert fs.head("demo/big.bin", 3) == BIG[:3]
    assert fs.tail("demo/big.bin", 3) == BIG[-3:]
    assert fs.read_block("demo/big.bin", 10, 20) == BIG[10:30]


def test_coroutines(worker: FakeWorker) -> None:
    async def main() -> None:
        fs = CacheopFileSystem(cache=str(worker.root), asynchronous=True, skip_instance_cache=True)
        for _ in range(2):
            wanted = [fs._cat_file(f"demo/{path}") for path in FILES]
            assert await asyncio.gather(*wanted) == list(FILES.values())
        assert await fs._cat_ranges(["demo/big.bin"], 1, 5) == [BIG[1:5]]
        assert (await fs._info("demo/empty"))["size"] == 0
        assert await fs._exists("demo/nowhere") is False
        assert len(await fs._find("demo")) == len(FILES)
        assert await fs._glob("demo/train/*/1.jpg") == ["demo/train/a/1.jpg"]
        async with await fs.open_async("demo/big.bin") as file:
            assert await file.read(7) == BIG[:7]
            assert await file.read() == BIG[7:]
        fs.invalidate_cache()

    asyncio.run(main())


def test_get(any_fs: CacheopFileSystem, tmp_path: Path) -> None:
    any_fs.get("demo/", str(tmp_path / "out"), recursive=True)
    for path, data in FILES.items():
        assert (tmp_path / "out" / path).read_bytes() == data
    any_fs.get_file("demo/big.bin", str(tmp_path / "new" / "big"))
    assert (tmp_path / "new" / "big").read_bytes() == BIG
    into = io.BytesIO()
    any_fs.get_file("demo/big.bin", into)
    assert into.getvalue() == BIG


def test_pickled(worker: FakeWorker, fs: CacheopFileSystem) -> None:
    again = pickle.loads(pickle.dumps(fs))
    assert again is not fs
    assert again.cat_file("demo/train-extra/4.jpg") == b"four"
    again.invalidate_cache()


def test_by_entry_point_and_environment(
    worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CACHEOP_CACHE", str(worker.root))
    with fsspec.open("cacheop://demo/train-extra/4.jpg") as file:
        assert file.read() == b"four"
    fs = fsspec.filesystem("cacheop")
    assert fs is fsspec.filesystem("cacheop")
    fs.invalidate_cache()
    fs.clear_instance_cache()


def test_a_wrong_token(worker: FakeWorker) -> None:
    fs = CacheopFileSystem(endpoint=worker.endpoint, token="guess", skip_instance_cache=True)
    with pytest.raises(OSError, match="wrong token"):
        fs.cat_file("demo/empty")


def test_another_dataset_answers(worker: FakeWorker, fs: CacheopFileSystem) -> None:
    with pytest.raises(WorkerUnavailable, match="serves the Dataset default/demo"):
        fs.cat_file("other/empty")
