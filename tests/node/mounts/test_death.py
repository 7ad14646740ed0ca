"""What readers see while processes die: nothing, or an errno in time; and what stays: nothing."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Self

import pytest

from tests.fakes.stored_version import checksum
from tests.node.mounts.conftest import wait_for

pytestmark = pytest.mark.node

FILES = {f"f{n}": 40_000 + 7_919 * n for n in range(20)} | {"big": 17 << 20}


class Readers:
    """Threads that read random files until stopped and note everything wrong."""

    def __init__(self, target: Path, count: int = 3) -> None:
        self.reads = 0
        self.wrong: list[str] = []
        self._stop = threading.Event()
        self._want = {path: checksum(path, size) for path, size in FILES.items()}
        self._threads = [
            threading.Thread(target=self._read, args=(target, seed)) for seed in range(count)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=30)
            assert not thread.is_alive(), "a reader hangs"

    def _read(self, target: Path, seed: int) -> None:
        dice = random.Random(seed)
        while not self._stop.is_set():
            path = dice.choice(list(FILES))
            try:
                with (target / path).open("rb", buffering=0) as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                    digest = hashlib.sha256(file.read()).hexdigest()
                if digest != self._want[path]:
                    self.wrong.append(f"{path}: other bytes")
            except OSError as error:
                self.wrong.append(f"{path}: {error}")
            self.reads += 1


@pytest.mark.parametrize("verb", ["mount", "supervise", "hold"])
def test_killed_under_readers(mounted, verb):
    mount, store = mounted(FILES)
    store.fill_all()
    with Readers(mount.target) as readers:
        for _ in range(6):
            wait_for(mount.whole)
            time.sleep(random.uniform(0.2, 0.6))
            mount.kill(verb)
    assert readers.wrong == []
    assert readers.reads > 30


def test_worker_killed_under_readers(mounted):
    mount, _ = mounted(FILES)
    mount.script(delay_seconds=0.01)
    with Readers(mount.target) as readers:
        for _ in range(4):
            mount.evict(*FILES)  # waits for the worker to be there
            time.sleep(1.2)
            mount.kill("work")
    assert readers.wrong == []
    assert readers.reads > 20


def test_cached_files_are_read_without_a_worker_by_a_new_mount_process_too(mounted):
    mount, store = mounted({"here": 100_000, "not": 100_000}, grace="2s")
    store.fill_file(store.index.resolve("here"))
    assert (mount.target / "here").stat().st_size == 100_000
    os.kill(mount.child("work"), signal.SIGSTOP)
    (mount.root / "worker.sock").unlink()
    mount.kill("mount")
    got = hashlib.sha256((mount.target / "here").read_bytes()).hexdigest()
    assert got == checksum("here", 100_000)
    started = time.monotonic()
    with pytest.raises(OSError) as caught:
        (mount.target / "not").read_bytes()
    assert caught.value.errno == errno.EIO
    assert time.monotonic() - started < 8
    mount.kill("work")  # a new one comes, and with it the file
    wait_for((mount.root / "worker.sock").exists)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            got = hashlib.sha256((mount.target / "not").read_bytes()).hexdigest()
            break
        except OSError:
            time.sleep(0.1)
    assert got == checksum("not", 100_000)


def test_a_mount_waits_for_the_first_version(mounted):
    mount, _ = mounted({"file": 1000}, start=False)
    mount.script(bind_seconds=1.5)
    started = time.monotonic()
    mount.start()
    got = hashlib.sha256((mount.target / "file").read_bytes()).hexdigest()
    assert got == checksum("file", 1000)
    assert 1 < time.monotonic() - started < 10


def test_a_new_mount_process_shows_the_same_version(mounted):
    mount, store = mounted({"file": 1000})
    assert os.listdir(mount.target) == ["file"]
    mount.kill("mount")
    (mount.target / "file").read_bytes()
    assert os.getxattr(mount.target, "user.cacheop.version").decode() == store.version


def test_stop_unmounts_and_leaves_no_process(mounted):
    mount, _ = mounted({"file": 1000})
    (mount.target / "file").read_bytes()
    pids = [mount.child(verb) for verb in ("work", "mount", "supervise", "hold")]
    assert mount.stop() == 0
    assert mount.kind() is None
    assert os.listdir(mount.target) == []
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_umount_by_hand_ends_only_the_mount(mounted):
    mount, _ = mounted({"file": 1000})
    (mount.target / "file").read_bytes()
    subprocess.run(["umount", mount.target], check=True)
    wait_for(lambda: mount.child("mount") is None)
    time.sleep(0.3)
    assert mount.child("mount") is None
    assert mount.child("work") is not None
    assert mount.kind() is None


def test_a_killed_launcher_takes_all_along_and_readers_get_an_errno(mounted):
    mount, _ = mounted({"file": 1000})
    (mount.target / "file").read_bytes()
    pids = [mount.child(verb) for verb in ("work", "mount", "supervise", "hold")]
    mount.launcher.kill()
    mount.launcher.wait()
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    with pytest.raises(OSError) as caught:
        os.statvfs(mount.target)
    assert caught.value.errno == errno.ENOTCONN
    mount.start()  # a dead mount of ours is cleared away
    wait_for(lambda: mount.child("mount") is not None)
    got = hashlib.sha256((mount.target / "file").read_bytes()).hexdigest()
    assert got == checksum("file", 1000)


def test_a_native_mount_needs_nobody(mounted):
    mount, store = mounted({"d/file": 100_000}, mode="Native", start=False)
    store.fill_all()
    mount.script(complete=True)
    mount.start()
    wait_for(mount.whole)
    assert mount.child("mount") is None
    assert mount.kind() != "fuse.cacheop"
    for verb in ("supervise", "hold", "work"):
        mount.kill(verb)
        got = hashlib.sha256((mount.target / "d/file").read_bytes()).hexdigest()
        assert got == checksum("d/file", 100_000)
        wait_for(mount.whole)
    with pytest.raises(OSError, match="Read-only"):
        (mount.target / "d/file").open("ab")
    assert mount.stop() == 0
    assert mount.kind() is None


def test_exit_codes_of_the_worker_end_everything(mounted):
    for code in (0, 2):
        mount, _ = mounted({"file": 1000}, start=False)
        mount.start(FAKE_WORKER_EXIT=str(code))
        assert mount.launcher.wait(timeout=20) == code
        assert mount.kind() is None


def test_a_target_that_is_in_use_is_refused(mounted):
    mount, _ = mounted({"file": 1000}, start=False)
    (mount.target / "mine").touch()
    mount.start()
    assert mount.launcher.wait(timeout=20) == 2
    assert (mount.target / "mine").exists()
    assert b"not empty" in Path(mount.log.name).read_bytes()
    (mount.target / "mine").unlink()
    mount.start()
    (mount.target / "file").read_bytes()


def test_processes_are_small(mounted):
    mount, _ = mounted({f"d{n % 100}/f{n}": n for n in range(20_000)})
    for _ in range(2):
        for directory in os.listdir(mount.target):
            os.listdir(mount.target / directory)
    assert pss_mib(mount.launcher.pid) <= 12
    assert pss_mib(mount.child("supervise")) <= 12
    assert pss_mib(mount.child("hold")) <= 12
    assert pss_mib(mount.child("mount")) <= 48


def pss_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no Pss")
