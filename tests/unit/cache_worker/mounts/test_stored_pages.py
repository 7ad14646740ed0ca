"""What a mount served is not in memory twice. Needs a disk: tmpfs is the only copy."""

from __future__ import annotations

import errno
import os
import time

import pytest

from cache_worker.mounts.pages import WRITTEN_SECONDS, StorePages
from cache_worker.mounts.paths import Paths
from cache_worker.mounts.stored import StoredVersion
from tests.fakes.stored_version import content, lay_out

SIZE = 300_000


class Clock:
    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    with path.open("wb") as out:
        out.write(os.urandom(SIZE))
        os.fsync(out.fileno())
    if not in_memory(path):
        pytest.skip("the file system does not tell what is in memory")
    return path


def in_memory(path) -> bool:
    """Whether the file's middle can be read without waiting."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.preadv(fd, [bytearray(1)], SIZE // 2, os.RWF_NOWAIT) == 1
    except OSError as error:
        if error.errno not in {errno.EAGAIN, errno.EOPNOTSUPP}:
            raise
        return False
    finally:
        os.close(fd)


def test_a_whole_file_goes_right_after_the_answer(file):
    clock = Clock()
    pages = StorePages(lambda _row: os.fsencode(file), clock)
    fd = os.open(file, os.O_RDONLY)
    clock.ahead = WRITTEN_SECONDS + 1
    pages.served(0, fd, whole=True)
    os.close(fd)
    assert not in_memory(file)


def test_a_part_goes_at_the_tick(file):
    clock = Clock()
    pages = StorePages(lambda _row: os.fsencode(file), clock)
    clock.ahead = WRITTEN_SECONDS + 1
    pages.served(0, -1, whole=False)
    assert in_memory(file)
    pages.tick()
    assert not in_memory(file)


@pytest.mark.parametrize("whole", [False, True])
def test_what_was_just_filled_waits_until_it_is_written(file, whole):
    clock = Clock()
    pages = StorePages(lambda _row: os.fsencode(file), clock)
    fd = os.open(file, os.O_RDONLY)
    pages.served(0, fd, whole=whole)
    os.close(fd)
    for clock.ahead in (0, 1, WRITTEN_SECONDS - 1):
        pages.tick()
    assert in_memory(file)
    clock.ahead = WRITTEN_SECONDS + 2
    pages.tick()
    assert not in_memory(file)


def test_a_file_that_was_evicted_is_no_fault(tmp_path):
    pages = StorePages(lambda _row: os.fsencode(tmp_path / "gone"))
    pages.served(0, -1, whole=False)
    pages.tick()


def test_a_file_read_at_once_is_closed_and_reads_again(tmp_path):
    store = lay_out(tmp_path, {"a/small": 5000, "top": 7, "a/b/c": 3})
    store.fill_all()
    stored = StoredVersion(store.root, store.version, [].append)
    for path, size in {"a/small": 5000, "top": 7, "a/b/c": 3}.items():
        row = store.index.resolve(path)
        view = memoryview(bytearray(size))
        for _ in range(2):
            assert stored.read(row, 0, view, wait=True) == size
            stored.served(row, 0, size)
            assert bytes(view) == content(path, 0, size)
            assert not is_open(store.path(row))
    stored.let_go()


def test_a_file_read_in_parts_stays_open(tmp_path):
    store = lay_out(tmp_path, {"a": 5000})
    store.fill_all()
    stored = StoredVersion(store.root, store.version, [].append)
    stored.read(0, 0, memoryview(bytearray(100)), wait=True)
    stored.served(0, 0, 100)
    assert is_open(store.path(0))


def test_paths_of_more_directories_than_are_remembered(tmp_path):
    index = lay_out(tmp_path, {**{f"d/{n}/f": 3 for n in range(9)}, "top": 1}).index
    paths = Paths(index, b"/base/", remembered=3)
    for row in [*range(index.rows), *range(index.rows)]:
        assert paths.path(row) == b"/base/" + os.fsencode(index.path(row))


def is_open(path) -> bool:
    links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    return any(os.path.exists(link) and os.readlink(link) == str(path) for link in links)
