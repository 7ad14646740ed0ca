"""Take-over on the real kernel: what a killed process had in hand is answered by the next one."""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from functools import partial

import pytest

from cache_worker.mounts import kernel
from cache_worker.mounts.channel import Channel
from cache_worker.mounts.ring import Lane
from tests.fakes.stored_version import checksum
from tests.node.mounts.conftest import wait_for
from tests.node.mounts.served import Served

pytestmark = pytest.mark.node

OLD_KERNEL = {"CACHEOP_MASK_INIT": "37,39"}
KERNELS = pytest.mark.parametrize("kernel_has", [{}, OLD_KERNEL], ids=["resend", "masked"])


@pytest.fixture
def served(tmp_path):
    made: list[Served] = []

    def make(files, **options) -> Served:
        made.append(Served(tmp_path, files, **options))
        return made[-1]

    yield make
    for mount in made:
        mount.close()


def reader(path) -> subprocess.Popen[bytes]:
    program = "import sys; sys.stdout.buffer.write(open(sys.argv[1], 'rb').read())"
    return subprocess.Popen([sys.executable, "-c", program, path], stdout=subprocess.PIPE)


def digest(process: subprocess.Popen[bytes]) -> str:
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    return hashlib.sha256(out).hexdigest()


def play_dying_server(mount: Served, number: int, op: int, *, park: bool = False) -> None:
    """Take one request from the kernel as a process of lane `number` would, and die with it."""
    lane = Lane(mount.ring, number)
    channel = Channel(os.dup(mount.fuse), lane)
    request = channel.receive()
    assert request is not None
    assert request.op == op
    if park:
        channel.park(request)
    fcntl.lockf(mount.ring.fd, fcntl.LOCK_UN, 1, number)
    os.close(channel.fd)


@KERNELS
def test_reads_that_waited_for_the_worker_survive_the_process(served, kernel_has):
    mount = served({f"f{n}": 110_000 for n in range(20)})
    mount.serve(**kernel_has)
    readers = {f"f{n}": reader(mount.target / f"f{n}") for n in range(20)}
    wait_for(lambda: mount.ring.requests().get("READ", 0) >= 20)
    for _ in range(3):
        mount.kill()
        mount.serve(**kernel_has)
        time.sleep(0.3)
    mount.work()
    for path, process in readers.items():
        assert digest(process) == checksum(path, 110_000)
    assert not any(mount.ring.entries(0)[kernel.UNIQUE_OFFSET // 8 :: 16].tolist())


@KERNELS
@pytest.mark.parametrize("park", [False, True], ids=["landed", "parked"])
@pytest.mark.parametrize("number", [0, 5], ids=["same lane", "lane without a process"])
def test_a_request_in_hand_is_answered_by_the_successor(served, kernel_has, park, number):
    mount = served({"file": 50_000})
    mount.store.fill_all()
    mount.serve(**kernel_has)
    os.stat(mount.target / "file" if park else mount.target)
    mount.kill()
    process = reader(mount.target / "file")
    play_dying_server(mount, number, kernel.OPEN if park else kernel.LOOKUP, park=park)
    mount.serve(**kernel_has)
    assert digest(process) == checksum("file", 50_000)


def test_a_process_killed_with_init_in_hand_leaves_it_to_the_next(served):
    mount = served({"file": 50_000})
    mount.store.fill_all()
    play_dying_server(mount, 0, kernel.INIT)
    mount.serve()
    assert digest(reader(mount.target / "file")) == checksum("file", 50_000)


@KERNELS
@pytest.mark.parametrize("mode", ["Fuse", "ZeroOpen"])
def test_readers_see_nothing_of_kills_at_random_moments(served, kernel_has, mode):
    files = {f"d{n % 3}/f{n}": 110_000 for n in range(30)} | {"big": 9 << 20}
    mount = served(files, mode=mode)
    mount.store.fill_all()
    lanes = 2
    for lane in range(lanes):
        mount.serve(lane, **kernel_has)
    want = {path: checksum(path, size) for path, size in files.items()}
    end, wrong, reads = time.monotonic() + 4, list[object](), [0, 0, 0]
    dice = random.Random(3)

    def read(number: int) -> None:
        while time.monotonic() < end:
            path = random.choice(list(files))
            try:
                fd = os.open(mount.target / path, os.O_RDONLY)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                with open(fd, "rb") as file:
                    if hashlib.sha256(file.read()).hexdigest() != want[path]:
                        wrong.append(path)
                if len(os.listdir(mount.target / "d1")) != 10:
                    wrong.append("listing")
                os.getxattr(mount.target / path, "user.cacheop.etag")
                reads[number] += 1
            except OSError as error:
                wrong.append(error)

    threads = [threading.Thread(target=read, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    kills = 0
    while time.monotonic() < end - 0.5:
        time.sleep(dice.uniform(0.01, 0.15))
        lane = dice.randrange(lanes)
        mount.kill(lane)
        mount.serve(lane, **kernel_has)
        kills += 1
    for thread in threads:
        thread.join(15)
        assert not thread.is_alive(), "a reader hangs"
    assert wrong == []
    assert kills > 10
    assert min(reads) > 5


def test_every_opcode_says_the_same_after_a_take_over(served):
    mount = served({"dir/file": 10_000, "dir/other": 5})
    mount.store.fill_all()
    file, directory = mount.target / "dir/file", mount.target / "dir"
    tries = {
        "stat": lambda: os.stat(file)[:9],
        "missing": lambda: os.stat(directory / "missing"),
        "read": lambda: hashlib.sha256(file.read_bytes()).hexdigest(),
        "listing": lambda: sorted(os.listdir(directory)),
        "scandir": lambda: sorted((e.name, e.stat().st_size) for e in os.scandir(directory)),
        "statfs": lambda: os.statvfs(mount.target)[:9],
        "xattr": lambda: os.getxattr(file, "user.cacheop.etag"),
        "no xattr": lambda: os.getxattr(file, "user.none"),
        "xattrs": lambda: os.listxattr(file),
        "access": lambda: (os.access(file, os.R_OK), os.access(file, os.X_OK)),
        "readlink": lambda: os.readlink(file),
        "seek": partial(_seek, file),
        "write": partial(file.open, "r+b"),
        "make": (directory / "new").touch,
        "remove": file.unlink,
        "mkdir": (directory / "sub").mkdir,
        "ioctl": partial(_ioctl, file),
    }
    mount.serve()
    before = {name: _result(attempt) for name, attempt in tries.items()}
    for name, attempt in tries.items():
        mount.kill()
        mount.serve()
        assert _result(attempt) == before[name], name
    assert before["stat"][0] == "ok"
    assert before["read"] == ("ok", checksum("dir/file", 10_000))


def _result(attempt) -> tuple[str, object]:
    try:
        return "ok", attempt()
    except OSError as error:
        return "errno", error.errno


def _seek(path) -> tuple[int, int]:
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.lseek(fd, 5, os.SEEK_DATA), os.lseek(fd, 5, os.SEEK_HOLE)
    finally:
        os.close(fd)


def _ioctl(path) -> int:
    with path.open("rb") as file:
        return fcntl.ioctl(file, 0x5401)


def test_a_killed_reader_leaves_whichever_process_hears_of_it(served):
    mount = served({f"f{n}": 1000 for n in range(8)})
    for lane in range(3):
        mount.serve(lane)
    os.listdir(mount.target)
    program = "import os, sys; os.read(os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECT), 4096)"
    for n in range(8):
        seen = mount.ring.requests().get("READ", 0)
        process = subprocess.Popen(
            [sys.executable, "-c", program, mount.target / f"f{n}"], stderr=subprocess.DEVNULL
        )
        wait_for(lambda seen=seen: mount.ring.requests().get("READ", 0) > seen)
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.wait(10)
        assert time.monotonic() - started < 1
