"""Mode Passthrough on the real kernel, with the real holder: bytes, space, memory, deaths."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import mmap
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fakes.stored_version import checksum, content, lay_out
from tests.node.mounts.conftest import Mounted, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.node

SMALL, BIG = 110_001, (20 << 20) + 12_345
FILES = {"a/one": SMALL, "a/two": SMALL, "a/three": SMALL, "big": BIG}
CACHESTAT = 451
PAGE_BYTES = 4096


def passing(mounted, *, filled: bool = True, **options):
    """A mount in mode Passthrough of FILES, served."""
    mount, store = mounted(FILES, mode="Passthrough", start=False, **options)
    if filled:
        store.fill_all()
    mount.start()
    wait_for(mount.whole)
    wait_for(lambda: mount.report()[0]["lanes"])
    return mount, store


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def all_right(mount) -> bool:
    return all(digest(mount.target / path) == checksum(path, size) for path, size in FILES.items())


def ids(mount) -> list[int]:
    """Backing ids by row, as the mount process sees them."""
    pid = mount.child("mount")
    for link in Path(f"/proc/{pid}/fd").iterdir():
        if "cacheop-ids" in os.readlink(link):
            with link.open("rb") as file:
                data = file.read()
            return list(struct.unpack(f"<{len(data) // 4}I", data))[2:]
    raise AssertionError("no ids")


def idle(mount, row: int) -> bool:
    try:
        return ids(mount)[row] == 0
    except (OSError, AssertionError):
        return False


def served(mount) -> dict[str, int]:
    """Requests that reached the mount process, as told a moment ago."""
    time.sleep(2.2)  # told once a second
    lines = [
        line for line in (mount.root / "fake.log").read_text().splitlines() if "served" in line
    ]
    return json.loads(lines[-1].split(" ", 2)[2]) if lines else {}


def cached_pages(path: Path) -> int:
    """Pages of `path` in the page cache: cachestat(2)."""
    fd = os.open(path, os.O_RDONLY)
    try:
        span, found = (ctypes.c_uint64 * 2)(0, 0), (ctypes.c_uint64 * 5)()
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syscall(CACHESTAT, fd, span, found, 0):
            pytest.skip("no cachestat (Linux 6.5)")
        return int(found[0])
    finally:
        os.close(fd)


@contextmanager
def stopped(pid: int | None) -> Iterator[None]:
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def check_span(fd: int, path: str, offset: int, length: int) -> None:
    assert os.pread(fd, length, offset) == content(path, offset, min(length, FILES[path] - offset))


def test_every_way_of_reading_gives_the_bytes_and_asks_for_opens_alone(mounted):
    mount, _ = passing(mounted)
    assert all_right(mount)
    before = served(mount)
    for path, size in FILES.items():
        fd = os.open(mount.target / path, os.O_RDONLY)
        for offset, length in [(0, 1), (1, 4095), (4097, 70_003), (size - 7, 100), (size, 10)]:
            check_span(fd, path, offset, length)
        with mmap.mmap(fd, 0, access=mmap.ACCESS_READ) as mapped:
            assert hashlib.sha256(mapped).hexdigest() == checksum(path, size)
        direct = os.open(mount.target / path, os.O_RDONLY | os.O_DIRECT)
        buffer = mmap.mmap(-1, 1 << 16)
        count = os.preadv(direct, [buffer], PAGE_BYTES)
        assert buffer[:count] == content(path, PAGE_BYTES, min(1 << 16, size - PAGE_BYTES))
        os.close(direct)
        os.close(fd)
    after = served(mount)
    more = {op for op, count in after.items() if count > before.get(op, 0)}
    assert more <= {"OPEN", "RELEASE"}
    assert "READ" not in after


def test_what_is_missing_is_filled_first_and_then_read_by_the_kernel(mounted):
    mount, store = passing(mounted, filled=False)
    row = store.index.resolve("a/one")
    assert digest(mount.target / "a/one") == checksum("a/one", SMALL)
    assert ids(mount)[row]
    assert "READ" not in served(mount)


def test_an_evicted_file_keeps_its_bytes_while_it_is_open_and_is_filled_anew_after(mounted):
    mount, store = passing(mounted)
    row = store.index.resolve("a/one")
    fd = os.open(mount.target / "a/one", os.O_RDONLY)
    before = ids(mount)[row]
    mount.evict("a/one")
    assert not store.path(row).exists()
    time.sleep(2)  # ticks
    check_span(fd, "a/one", 0, SMALL)
    assert digest(mount.target / "a/one") == checksum("a/one", SMALL)
    assert ids(mount)[row] == before
    os.close(fd)
    wait_for(lambda: idle(mount, row))
    assert digest(mount.target / "a/one") == checksum("a/one", SMALL)
    assert ids(mount)[row] not in {0, before}


def test_space_of_an_evicted_file_comes_back_after_its_last_close(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256m", "none", disk], check=True)
    mount = Mounted(disk, mode="Passthrough")
    try:
        lay_out(mount.root, FILES).fill_all()
        mount.start()
        wait_for(mount.whole)
        full = os.statvfs(disk).f_bfree
        fd = os.open(mount.target / "big", os.O_RDONLY)
        check_span(fd, "big", 12_345, 70_000)
        mount.evict("big")
        time.sleep(1.5)
        assert os.statvfs(disk).f_bfree < full + 100  # the kernel holds it for us
        check_span(fd, "big", 15_000_000, 70_000)
        os.close(fd)
        wait_for(lambda: os.statvfs(disk).f_bfree > full + BIG // PAGE_BYTES - 100)
    finally:
        mount.close()
        subprocess.run(["umount", "-l", disk], check=True)


def test_a_big_file_read_through_us_passes_once_it_is_complete_and_is_in_memory_once(mounted):
    mount, store = passing(mounted, filled=False)
    row = store.index.resolve("big")
    fd = os.open(mount.target / "big", os.O_RDONLY)
    assert digest(mount.target / "big") == checksum("big", BIG)  # fills it
    assert ids(mount)[row] == 0
    assert cached_pages(mount.target / "big") > 0
    other = os.open(mount.target / "big", os.O_RDONLY)  # complete now, and as it was
    check_span(other, "big", 9_999_999, 100_000)
    os.close(other)
    os.close(fd)
    reads = served(mount)["READ"]
    fd = os.open(mount.target / "big", os.O_RDONLY)
    assert digest(mount.target / "big") == checksum("big", BIG)
    assert ids(mount)[row]
    assert served(mount)["READ"] == reads
    assert cached_pages(store.path(row)) >= BIG // PAGE_BYTES
    assert cached_pages(mount.target / "big") == 0
    os.close(fd)


def test_open_files_are_read_on_while_nobody_serves_and_others_are_opened_after(mounted):
    mount, store = passing(mounted)
    assert all_right(mount)
    held = [os.open(mount.target / path, os.O_RDONLY) for path in FILES]
    before = ids(mount)
    supervisor = mount.child("supervise")
    pid = mount.child("mount")
    with stopped(supervisor):
        os.kill(pid, signal.SIGKILL)
        for fd, (path, size) in zip(held, FILES.items(), strict=True):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            check_span(fd, path, size // 2, 50_000)
    for fd in held:
        os.close(fd)
    assert all_right(mount)
    assert all_right(mount)
    time.sleep(2.2)  # ticks
    assert ids(mount) == before  # what was proved needs no holder
    mount.evict(*FILES)
    wait_for(lambda: not any(ids(mount)))
    assert all_right(mount)
    assert store.path(store.index.resolve("a/one")).exists()


def test_a_holder_away_is_missed_by_new_files_alone_and_they_wait_for_it(mounted):
    mount, _ = passing(mounted)
    assert digest(mount.target / "a/one") == checksum("a/one", SMALL)
    held = os.open(mount.target / "a/one", os.O_RDONLY)
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(digest(mount.target / "a/two")))
    with stopped(mount.launcher.pid):
        os.kill(mount.child("hold"), signal.SIGKILL)
        check_span(held, "a/one", 777, 5_000)
        assert digest(mount.target / "a/one") == checksum("a/one", SMALL)
        thread.start()
        thread.join(1)
        assert not found
    thread.join(10)
    assert found == [checksum("a/two", SMALL)]
    os.close(held)
    assert all_right(mount)


def test_a_holder_away_for_longer_than_the_grace_time_is_an_error_until_it_is_back(mounted):
    mount, _ = passing(mounted, grace="1s")
    with stopped(mount.launcher.pid):
        os.kill(mount.child("hold"), signal.SIGKILL)
        started = time.monotonic()
        with pytest.raises(OSError) as caught:
            os.open(mount.target / "a/one", os.O_RDONLY)
        assert caught.value.errno == errno.EIO
        assert time.monotonic() - started < 5
    wait_for(mount.whole)
    wait_for(lambda: mount.report()[0]["lanes"])
    assert all_right(mount)


def test_a_killed_reader_leaves_while_its_open_waits_for_the_holder(mounted):
    mount, store = passing(mounted)
    with stopped(mount.child("hold")):
        reader = subprocess.Popen([sys.executable, "-c", f"open({str(mount.target / 'a/one')!r})"])
        time.sleep(0.7)
        assert reader.poll() is None
        reader.kill()
        assert reader.wait(2) == -signal.SIGKILL
    assert all_right(mount)
    row = store.index.resolve("a/one")
    mount.evict("a/one")
    wait_for(lambda: idle(mount, row))  # nothing was counted as open


def test_readers_notice_nothing_while_processes_die_and_files_come_and_go(mounted):
    mount, _ = passing(mounted)
    end, wrong = threading.Event(), []

    def read(seed: int) -> None:
        paths = list(FILES)[seed % 2 :]
        while not end.is_set():
            for path in paths:
                try:
                    if digest(mount.target / path) != checksum(path, FILES[path]):
                        wrong.append(path)
                except OSError as error:
                    wrong.append(str(error))

    readers = [threading.Thread(target=read, args=(n,)) for n in range(4)]
    for reader in readers:
        reader.start()
    try:
        for verb in ("mount", "hold", "mount", "work", "mount", "hold"):
            mount.evict("a/one", "a/two")
            mount.kill(verb)
            wait_for(mount.whole)
            mount.evict("a/three", "big")
    finally:
        end.set()
        for reader in readers:
            reader.join(20)
    assert wrong == []
    assert not any(reader.is_alive() for reader in readers)
    assert all_right(mount)
    time.sleep(0.2)
    mount.evict(*FILES)
    wait_for(lambda: not any(ids(mount)))


def test_a_kernel_without_passthrough_is_served_in_mode_fuse_and_the_holder_knows(mounted):
    mount, store = mounted(FILES, mode="Passthrough", start=False)
    store.fill_all()
    mount.start(CACHEOP_MASK_INIT="37")
    assert all_right(mount)
    wait_for(lambda: mount.report()[0]["mode"] == "Fuse")
    assert "no passthrough" in str(mount.report()[0]["why"])
