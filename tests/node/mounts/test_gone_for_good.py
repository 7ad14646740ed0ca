"""What is gone and stays away: errors in time, no hang, nothing left behind."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import random
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fakes.running_node import RunningNode, drop_kernel_caches, mounts_at, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [
    pytest.mark.node,
    pytest.mark.skipif(
        os.geteuid() != 0 or not Path("/dev/fuse").exists(), reason="needs root and /dev/fuse"
    ),
]

MODES = ("ZeroOpen", "Passthrough", "Fuse")
SIZES = {"here": 120_000, "there": 90_000, "later": 70_000, "big": 17 << 20}
GRACE_SECONDS = 2
DISK_MIB = 256
EXT4_IOC_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32): no more I/O, as if the disk was pulled
NO_LOG_FLUSH = 2
BROKEN = (errno.EIO, errno.ENOTCONN, errno.ECONNABORTED, errno.ENOENT)  # the last: unmounted
READ = """
import hashlib, os, sys
for path in sys.argv[1:]:
    try:
        fd = os.open(path, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        print(hashlib.sha256(b"".join(iter(lambda: os.read(fd, 1 << 20), b""))).hexdigest())
    except OSError as error:
        print(error.errno)
"""


@pytest.fixture
def sums(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "origin").mkdir()
    found = {}
    for path, size in SIZES.items():
        data = random.Random(path).randbytes(size)
        (tmp_path / "origin" / path).write_bytes(data)
        found[path] = hashlib.sha256(data).hexdigest()
    return found


@pytest.fixture
def make_node(tmp_path: Path, sums: dict[str, str]) -> Iterator[Callable[..., RunningNode]]:
    made: list[RunningNode] = []

    def make(mode: str, directory: Path = tmp_path, grace: str = f"{GRACE_SECONDS}s"):
        (tmp_path / "mnt").mkdir()
        mounts = [{"target": str(tmp_path / "mnt"), "mode": mode, "version": ""}]
        spec = {"mount": {"grace": grace}}
        origin = f"file://{tmp_path}/origin"
        made.append(RunningNode(directory / "node", origin, mounts, spec=spec))
        made[0].log = tmp_path / "log"  # not on the disk that is pulled
        return made[0]

    yield make
    for node in made:
        node.close()


def read(node: RunningNode, *paths: str) -> subprocess.Popen[bytes]:
    """A process that reads and prints checksum or errno of each."""
    names = [str(node.targets[0] / path) for path in paths]
    return subprocess.Popen([sys.executable, "-c", READ, *names], stdout=subprocess.PIPE)


def result(reader: subprocess.Popen[bytes], seconds: float) -> list[str]:
    try:
        return reader.communicate(timeout=seconds)[0].decode().split()
    except subprocess.TimeoutExpired:
        return ["it hangs"]
    finally:
        reader.kill()
        reader.wait()


@contextlib.contextmanager
def worker_away(node: RunningNode) -> Iterator[None]:
    """The worker is there no more and no other can come, as its supervisor sees it running."""
    node.kill("worker", signal.SIGSTOP)
    aside = node.root / "worker.sock.away"
    (node.root / "worker.sock").rename(aside)
    # Lines that are open end as with a dead process: nothing reads them, and the socket is gone.
    try:
        yield
    finally:
        node.kill("worker")
        wait_for((node.root / "worker.sock").exists, 20)
        aside.unlink(missing_ok=True)


@pytest.mark.parametrize("mode", MODES)
def test_a_worker_away_longer_than_the_grace_time_is_eio_and_works_again(make_node, sums, mode):
    node = make_node(mode)
    node.start()
    node.call("load", paths=["here"])
    assert result(read(node, "here"), 10) == [sums["here"]]
    with worker_away(node):
        node.kill("mount")  # the next one finds no worker from the start
        wait_for(lambda: node.pids()["mount"])
        started = time.monotonic()
        assert result(read(node, "here", "there"), 20) == [sums["here"], str(errno.EIO)]
        assert time.monotonic() - started < GRACE_SECONDS + 6
    deadline = time.monotonic() + 20
    while result(read(node, "there"), 20) != [sums["there"]]:
        assert time.monotonic() < deadline, "it stays broken"
        time.sleep(0.1)
    assert result(read(node, "here", "later", "big"), 30) == [
        sums[path] for path in ("here", "later", "big")
    ]


@pytest.mark.parametrize("mode", MODES)
def test_within_the_grace_time_readers_wait(make_node, sums, mode):
    node = make_node(mode, grace="60s")
    node.start()
    with worker_away(node):
        node.kill("mount")
        reader = read(node, "there")
        time.sleep(1.5)
        assert reader.poll() is None
    assert result(reader, 20) == [sums["there"]]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("path", ["there", "big"])
def test_a_killed_reader_leaves_at_once_while_it_waits_for_the_worker(make_node, sums, mode, path):
    node = make_node(mode, grace="60s")
    node.start()
    os.listdir(node.targets[0])
    node.kill("worker", signal.SIGSTOP)
    try:
        reader = read(node, path)
        time.sleep(1)
        assert reader.poll() is None, "it did not wait"
        started = time.monotonic()
        reader.kill()
        reader.wait(timeout=10)
        assert time.monotonic() - started < 1
    finally:
        node.kill("worker", signal.SIGCONT)
    assert result(read(node, path), 20) == [sums[path]]  # nothing of it is left in the way


@pytest.mark.parametrize("mode", MODES)
def test_a_reader_can_be_killed_while_nobody_serves_at_all(make_node, sums, mode):
    node = make_node(mode, grace="60s")
    node.start()
    node.kill("supervisor", signal.SIGSTOP)
    try:
        node.kill("mount")
        reader = read(node, "there")
        time.sleep(0.5)
        assert reader.poll() is None, "it did not wait"
        started = time.monotonic()
        reader.kill()
        reader.wait(timeout=10)
        assert time.monotonic() - started < 1
    finally:
        node.kill("supervisor", signal.SIGCONT)
    assert result(read(node, "there"), 20) == [sums["there"]]


# -- the cache's disk ------------------------------------------------------------------------------


class Disk:
    """An ext4 of its own on a loop device, whose backing file lies in memory."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.image = Path("/dev/shm") / f"cacheop-test-disk-{os.getpid()}"
        target.mkdir()
        with self.image.open("wb") as file:
            file.truncate(DISK_MIB << 20)
        try:
            run("mkfs.ext4", "-q", self.image)
            run("mount", "-o", "loop", self.image, target)
        except BaseException:
            self.image.unlink()
            raise

    def pull(self, how: str) -> None:
        """Every read and write that reaches the disk fails from now on."""
        os.sync()
        if how == "truncated":
            os.truncate(self.image, 0)
        else:
            fd = os.open(self.target, os.O_RDONLY)
            fcntl.ioctl(fd, EXT4_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
            os.close(fd)
        drop_kernel_caches(1)

    def is_free(self) -> bool:
        """Whether it could be unmounted: nobody holds a file or a mount of it."""
        return (
            subprocess.run(["umount", self.target], capture_output=True, check=False).returncode
            == 0
        )

    def loops(self) -> str:
        return run("losetup", "-j", self.image)

    def close(self) -> None:
        while mounts_at(self.target):
            run("umount", "-l", self.target)
        self.image.unlink()


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    try:
        found = Disk(tmp_path / "disk")
    except (AssertionError, OSError) as error:
        pytest.skip(f"cannot make a loop device here: {error}")
    yield found
    found.close()


@pytest.mark.parametrize("how", ["truncated", "shut down"])
@pytest.mark.parametrize("mode", ["Native", *MODES])
def test_a_pulled_cache_disk_is_errors_and_leaves_nothing(make_node, disk, sums, mode, how):
    node = make_node(mode, disk.target)
    if mode == "Native":  # it must be complete when it is mounted
        fill(node)
    node.start()
    node.call("load", paths=["here", "big"])
    assert node.report()[0]["mode"] == mode
    assert result(read(node, "here", "big"), 20) == [sums["here"], sums["big"]]
    pids = node.all_pids()
    disk.pull(how)
    for path in ("here", "big", "there"):
        answer = result(read(node, path), 20)  # no hang
        assert answer in [[sums[path]], *([str(code)] for code in BROKEN)], (answer, node.tail())
    with contextlib.suppress(OSError):
        os.statvfs(node.targets[0])
    with contextlib.suppress(AssertionError):  # whatever its exit code: it has ended
        node.stop()
    assert node.process.poll() is not None
    wait_for(lambda: not [pid for pid in pids if Path(f"/proc/{pid}").exists()])
    assert mounts_at(node.targets[0]) == []
    wait_for(disk.is_free)
    wait_for(lambda: disk.loops() == "")


def fill(node: RunningNode) -> None:
    """Load everything before there is a mount."""
    from tests.fakes.running_worker import RunningWorker

    origin, before = f"file://{node.directory.parents[1]}/origin", node.config.read_bytes()
    with RunningWorker(node.directory, [{"mountPoint": origin}]) as worker:  # its own CONFIG
        worker.call("load")
    node.config.write_bytes(before)
