"""Whatever is killed, readers see nothing of it but a pause."""

from __future__ import annotations

import ctypes
import errno
import os
import random
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.running_node import RunningNode, drop_kernel_caches, wait_for
from tests.node.mounts import storm

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.node,
    pytest.mark.skipif(
        os.geteuid() != 0 or not Path("/dev/fuse").exists(), reason="needs root and /dev/fuse"
    ),
]

SECONDS = float(os.environ.get("CACHEOP_STORM_SECONDS", "20"))
"""Of all storms together."""
AT_STATX_FORCE_SYNC, STATX_BASIC, STATX_BYTES = 0x2000, 0x7FF, 256
SYS_STATX = 332 if os.uname().machine == "x86_64" else 291


def kernel() -> tuple[int, ...]:
    return tuple(int(part) for part in os.uname().release.split(".")[:2])


# -- gaps_seconds and share: the arithmetic of what is asserted ------------------------------------


def test_a_gap_is_the_longest_wait_from_a_kill_until_the_next_one():
    kills = [(10.0, "mount"), (20.0, "holder")]
    slow = [(9.0, 10.5), (10.1, 10.2), (19.5, 21.0), (30.0, 30.25), (5.0, 9.9)]
    assert storm.gaps_seconds(kills, slow) == [1.5, 1.0]
    assert storm.gaps_seconds(kills, []) == [0.0, 0.0]


def test_waits_are_told_apart_by_whether_the_worker_was_there():
    slow = [(1.0, 2.0), (3.0, 4.0), (5.0, 9.0)]
    assert storm.apart(slow, [(3.5, 5.0)]) == ([(1.0, 2.0), (5.0, 9.0)], [(3.0, 4.0)])
    assert storm.apart(slow, []) == (slow, [])


def test_a_share_of_values():
    values = [float(n) for n in range(100)]
    assert (storm.share(values, 0.5), storm.share(values, 0.99)) == (50.0, 99.0)
    assert storm.share([], 0.5) == 0.0


# -- the storm -------------------------------------------------------------------------------------


@pytest.mark.timeout(120)
@pytest.mark.parametrize("mask", [False, True], ids=["this kernel", "older kernel"])
@pytest.mark.parametrize("mode", storm.MODES)
def test_no_error_and_no_wrong_byte_whatever_is_killed(tmp_path: Path, mode: str, mask: bool):
    seed = int(os.environ.get("CACHEOP_STORM_SEED", str(random.SystemRandom().randrange(1 << 32))))
    seconds = SECONDS / (2 * len(storm.MODES))
    found = storm.rage(tmp_path, seconds=seconds, seed=seed, mode=mode, mask=mask)
    print(found)
    assert (found["errors"], found["wrong"], found["hangs"]) == (0, 0, 0), found["examples"]
    assert found["kills"] >= seconds, found
    assert all(reads > 0 for reads in found["reads_by_kind"].values())
    assert found["slowest_seconds"] <= storm.HANG_SECONDS
    assert found["gap_ms"]["p99"] <= 1000
    assert found["tracebacks"] == 0, found["log"]
    can_pass = kernel() >= (6, 9) and not mask
    assert found["served_as"] == ("Fuse" if mode == "Passthrough" and not can_pass else mode)


# -- after a take-over -----------------------------------------------------------------------------

FILES = {"dir/a": 100_000, "dir/b": 5, "dir/sub/c": 9 << 20, "empty": 0}


@pytest.fixture(params=storm.MODES)
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunningNode]:
    rng = random.Random(1)
    for path, size in FILES.items():
        (tmp_path / "origin" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "origin" / path).write_bytes(rng.randbytes(size))
    (tmp_path / "mnt").mkdir()
    mount = {"target": str(tmp_path / "mnt"), "mode": request.param, "version": ""}
    node = RunningNode(tmp_path / "node", f"file://{tmp_path}/origin", [mount])
    node.mode = request.param
    try:
        node.start()
        node.call("load")
        yield node
    finally:
        node.close()


def errno_of(act: Any, *arguments: Any) -> str:
    try:
        return f"no error: {act(*arguments)}"
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def statx_from_the_server(path: Path) -> bytes:
    """Size, mode and inode as the file system says now, not as the kernel remembers."""
    buffer = ctypes.create_string_buffer(STATX_BYTES)
    libc = ctypes.CDLL(None, use_errno=True)
    code = libc.syscall(
        SYS_STATX, -100, os.fsencode(path), AT_STATX_FORCE_SYNC, STATX_BASIC, buffer
    )
    assert code == 0, os.strerror(ctypes.get_errno())
    return buffer.raw[28:48]  # stx_mode, stx_ino, stx_size


def every_answer(top: Path) -> dict[str, Any]:
    """What each request that a file system may get is answered."""
    path = top / "dir/a"
    fd = os.open(path, os.O_RDONLY)
    try:
        answers = {
            "read": os.pread(fd, 1000, 50_000),
            "lseek": (os.lseek(fd, 3, os.SEEK_DATA), os.lseek(fd, 3, os.SEEK_HOLE)),
            "fsync": errno_of(os.fsync, fd),
            "ioctl": errno_of(ioctl_blocks, fd),
        }
    finally:
        os.close(fd)
    info = path.stat()
    usage = os.statvfs(top)
    return answers | {
        "lookup": (info.st_ino, info.st_size, info.st_mtime_ns, stat.filemode(info.st_mode)),
        "lookup of nothing": errno_of(os.stat, top / "dir/nothing"),
        "getattr": statx_from_the_server(path),
        "opendir": sorted(os.listdir(top)),
        "readdirplus": sorted(
            (e.name, e.inode(), e.stat().st_size) for e in os.scandir(top / "dir")
        ),
        "readdir": subprocess.run(
            ["find", ".", "-size", "+0"], cwd=top, capture_output=True, check=True
        ).stdout,
        "statfs": (usage.f_blocks, usage.f_files, usage.f_namemax, usage.f_flag),
        "getxattr": os.getxattr(path, "user.cacheop.version"),
        "getxattr of nothing": errno_of(os.getxattr, path, "user.nothing"),
        "listxattr": sorted(os.listxattr(path)),
        "access": [os.access(path, how) for how in (os.F_OK, os.R_OK, os.W_OK)],
        "readlink": errno_of(os.readlink, path),
        "write": errno_of(os.open, path, os.O_RDWR),
        "create": errno_of(os.open, top / "new", os.O_CREAT | os.O_WRONLY),
        "unlink": errno_of(os.unlink, path),
        "mkdir": errno_of(os.mkdir, top / "new"),
        "rename": errno_of(os.rename, path, top / "new"),
        "symlink": errno_of(os.symlink, "x", top / "new"),
        "chmod": errno_of(os.chmod, path, 0o777),
        "setxattr": errno_of(os.setxattr, path, "user.x", b"1"),
        "removexattr": errno_of(os.removexattr, path, "user.cacheop.etag"),
    }


def ioctl_blocks(fd: int) -> int:
    import fcntl

    return fcntl.ioctl(fd, 0x1234, 0)


@pytest.mark.parametrize("role", ["mount", "supervisor"])
def test_every_request_is_answered_as_before_by_a_successor(node: RunningNode, role: str):
    top = node.targets[0]
    before = every_answer(top)
    held = os.open(top / "dir/sub/c", os.O_RDONLY)
    directory = os.open(top / "dir", os.O_RDONLY)
    try:
        node.replace(role)
        drop_kernel_caches(3)
        assert every_answer(top) == before
        assert len(os.pread(held, 1 << 20, 8 << 20)) == 1 << 20
        assert sorted(os.listdir(directory)) == ["a", "b", "sub"]
    finally:
        os.close(held)
        os.close(directory)
    writes = ("write", "create", "unlink", "mkdir", "rename", "symlink", "chmod", "setxattr")
    assert {before[what] for what in writes} == {"EROFS"}
    assert before["getxattr of nothing"] == "ENODATA"
    assert before["lookup of nothing"] == "ENOENT"


READ_ON = """
import hashlib, mmap, os, sys
held = [os.open(path, os.O_RDONLY) for path in sys.argv[1:]]
maps = [mmap.mmap(fd, 0, prot=mmap.PROT_READ) for fd in held]
print("open", flush=True)
sys.stdin.readline()
for fd, mapped in zip(held, maps):
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    print(hashlib.sha256(mapped).hexdigest(), flush=True)
    data = b"".join(iter(lambda: os.read(fd, 1 << 20), b""))
    print(hashlib.sha256(data).hexdigest(), flush=True)
"""


@pytest.mark.skipif(kernel() < (6, 9), reason="needs FUSE passthrough: Linux 6.9")
@pytest.mark.parametrize("node", ["Passthrough"], indirect=True)
def test_files_open_in_passthrough_are_read_on_while_nobody_serves(node: RunningNode, tmp_path):
    import hashlib

    top = node.targets[0]
    assert node.report()[0]["mode"] == "Passthrough"
    (top / "dir/b").read_bytes()  # from its close on, the kernel asks for no FLUSH any more
    paths = ["dir/a", "dir/sub/c"]
    reader = subprocess.Popen(
        [sys.executable, "-c", READ_ON, *(str(top / path) for path in paths)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert reader.stdout.readline() == "open\n"
        node.kill("supervisor", signal.SIGSTOP)  # nobody starts a mount process again
        dead = node.kill("mount")
        wait_for(lambda: all(is_dead(pid) for pid in dead))
        for path in paths:  # not from the kernel's pages
            fd = os.open(node.root / "data" / node.report()[0]["version"] / path, os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)
        out, _ = reader.communicate("go\n", timeout=10)
    finally:
        node.kill("supervisor", signal.SIGCONT)
        reader.kill()
        reader.wait()
    want = [hashlib.sha256((tmp_path / "origin" / path).read_bytes()).hexdigest() for path in paths]
    assert out.split() == [want[0], want[0], want[1], want[1]]
    node.wait_whole()
    assert (top / "dir/b").stat().st_size == 5


@pytest.mark.parametrize("node", ["Passthrough", "Fuse"], indirect=True)
def test_the_very_first_close_waits_for_nobody(node: RunningNode):
    """A FLUSH that nobody answers keeps even a killed process from leaving."""
    program = "import os, sys; fd = os.open(sys.argv[1], 0); print(1, flush=True); input()"
    reader = subprocess.Popen(
        [sys.executable, "-c", program, str(node.targets[0] / "dir/a")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert reader.stdout.readline() == b"1\n"
        node.kill("supervisor", signal.SIGSTOP)
        dead = node.kill("mount")
        wait_for(lambda: all(is_dead(pid) for pid in dead))
        reader.kill()
        reader.wait(timeout=5)
    finally:
        node.kill("supervisor", signal.SIGCONT)
        reader.kill()
        reader.wait()


def is_dead(pid: int) -> bool:
    """Gone, or waiting for a parent that is stopped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True
