"""What people read files with, in every mode, from an empty and from a full cache."""

from __future__ import annotations

import ctypes
import hashlib
import json
import mmap
import os
import random
import resource
import shutil
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest

from tests.fakes.running_node import RunningNode, drop_kernel_caches, wait_for
from tests.fakes.running_worker import RunningWorker

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.node,
    pytest.mark.skipif(
        os.geteuid() != 0 or not Path("/dev/fuse").exists(), reason="needs root and /dev/fuse"
    ),
]

CLASSES, IMAGES = ("cat", "dog", "fox"), 30
ARRAY_SHAPE = (640, 4096)  # 20 MiB of float64: three chunks
THREADS = 64
OPEN_FILES = 10_000
# (mode, full): Native serves a complete version only
SETTINGS = [("Native", True)] + [
    (mode, full) for mode in ("ZeroOpen", "Passthrough", "Fuse") for full in (True, False)
]
O_DIRECT_ALIGN = 4096


def write_files(directory: Path) -> None:
    noise = np.random.default_rng(5)
    for name in CLASSES:
        (directory / "train" / name).mkdir(parents=True)
        for number in range(IMAGES):
            size = 1_000 + int(noise.integers(100_000))
            (directory / "train" / name / f"{number:03d}.jpg").write_bytes(noise.bytes(size))
    np.save(directory / "array.npy", noise.random(ARRAY_SHAPE))
    table = pa.table({"x": noise.random(1_200_000), "n": np.arange(1_200_000)})
    sink = pa.OSFile(str(directory / "table.arrow"), "wb")
    with sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    (directory / "model.safetensors").write_bytes(safetensors({"w": (1500, 1500), "b": (77,)}))
    (directory / "empty").write_bytes(b"")
    (directory / "deep/er/and/er").mkdir(parents=True)
    (directory / "deep/er/and/er/a b ü").write_bytes(b"odd names are names too")


def safetensors(shapes: dict[str, tuple[int, ...]]) -> bytes:
    """A file of this format: u64 length, JSON header, tensors."""
    noise, header, parts, at = np.random.default_rng(6), {}, [], 0
    for name, shape in shapes.items():
        data = noise.random(shape, dtype=np.float32).tobytes()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + len(data)]}
        parts.append(data)
        at += len(data)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"".join(parts)


class Mounted:
    """The mount under test and the originals."""

    def __init__(self, node: RunningNode, origin: Path, mode: str) -> None:
        self.node, self.origin, self.mode = node, origin, mode
        self.top = node.targets[0]
        self.sums = sums_below(origin)
        self.version = node.mount_at(self.top)["version"]


def sums_below(top: Path) -> dict[str, str]:
    """Path -> checksum of every file."""
    return {
        str(path.relative_to(top)): sha256(path)
        for path in sorted(top.rglob("*"))
        if path.is_file()
    }


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("origin")
    write_files(directory)
    return directory


@pytest.fixture(
    scope="module", params=SETTINGS, ids=lambda s: f"{s[0]}-{'warm' if s[1] else 'cold'}"
)
def setting(
    request: pytest.FixtureRequest, origin: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Mounted, bool]]:
    mode, full = request.param
    directory = tmp_path_factory.mktemp("node")
    directory.chmod(0o755)
    target = directory / "mnt"
    target.mkdir()
    if full:  # before anything is mounted, as Native must find it whole
        with RunningWorker(directory / "n", [{"mountPoint": f"file://{origin}"}]) as worker:
            worker.call("load")
    mounts = [{"target": str(target), "mode": mode, "version": ""}]
    node = RunningNode(directory / "n", f"file://{origin}", mounts)
    try:
        node.start()
        found = node.mount_at(target)
        assert found["mode"] == mode, found["why"]
        yield Mounted(node, origin, mode), full
    finally:
        node.close()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def mounted(setting: tuple[Mounted, bool]) -> Mounted:
    """Cold: nothing in the cache. Both: nothing in the kernel's page cache."""
    found, full = setting
    if not full:
        wait_for(lambda: is_empty(found.node))
    drop_kernel_caches(3)
    return found


def is_empty(node: RunningNode) -> bool:
    """Evict everything; not yet empty while a fill that somebody asked for ahead still runs."""
    node.call("evict")
    return bool(node.status()["cached_bytes"] == 0)


def run(*command: str | Path, **more: object) -> bytes:
    done = subprocess.run(command, capture_output=True, timeout=100, check=False, **more)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return done.stdout


def test_cp(mounted: Mounted, tmp_path: Path):
    run("cp", "-r", mounted.top, tmp_path / "copy")
    assert sums_below(tmp_path / "copy") == mounted.sums


def test_tar(mounted: Mounted, tmp_path: Path):
    run("tar", "-cf", tmp_path / "all.tar", "-C", mounted.top, ".")
    (tmp_path / "out").mkdir()
    run("tar", "-xf", tmp_path / "all.tar", "-C", tmp_path / "out")
    assert sums_below(tmp_path / "out") == mounted.sums


@pytest.mark.skipif(not shutil.which("rsync"), reason="rsync is not installed")
def test_rsync(mounted: Mounted, tmp_path: Path):
    run("rsync", "-r", "--checksum", f"{mounted.top}/", tmp_path / "copy")
    assert sums_below(tmp_path / "copy") == mounted.sums
    again = run("rsync", "-r", "--checksum", "-i", f"{mounted.top}/", tmp_path / "copy")
    assert not [line for line in again.splitlines() if line.startswith(b">f")]


def test_sha256sum(mounted: Mounted):
    lines = "".join(f"{digest}  {path}\n" for path, digest in mounted.sums.items())
    run("sha256sum", "--check", "--strict", "--quiet", cwd=mounted.top, input=lines.encode())


def test_a_walk_as_image_folder_does_it(mounted: Mounted):
    """ImageFolder of torchvision: classes by scandir, samples by a sorted walk, then reads."""
    train = mounted.top / "train"
    classes = sorted(entry.name for entry in os.scandir(train) if entry.is_dir())
    assert classes == sorted(CLASSES)
    samples = [
        os.path.join(directory, name)
        for label in classes
        for directory, _, names in sorted(os.walk(train / label, followlinks=True))
        for name in sorted(names)
        if name.endswith(".jpg")
    ]
    assert len(samples) == len(CLASSES) * IMAGES
    random.Random(3).shuffle(samples)
    for sample in samples:
        assert sha256(Path(sample)) == mounted.sums[os.path.relpath(sample, mounted.top)]


def test_numpy_memmap(mounted: Mounted):
    here = np.load(mounted.top / "array.npy", mmap_mode="r")
    right = np.load(mounted.origin / "array.npy")
    rows = np.random.default_rng(1).permutation(ARRAY_SHAPE[0])
    assert all(np.array_equal(here[row], right[row]) for row in rows)


def test_safetensors_by_mapping(mounted: Mounted):
    with (mounted.top / "model.safetensors").open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    (length,) = struct.unpack_from("<Q", mapped)
    header = json.loads(mapped[8 : 8 + length])
    right = (mounted.origin / "model.safetensors").read_bytes()[8 + length :]
    for name in ("b", "w"):  # the last one first
        start, end = header[name]["data_offsets"]
        tensor = np.frombuffer(mapped, np.float32, (end - start) // 4, 8 + length + start)
        assert tensor.tobytes() == right[start:end]
        assert tensor.size == np.prod(header[name]["shape"])


def test_arrow_memory_map(mounted: Mounted):
    with pa.memory_map(str(mounted.top / "table.arrow")) as source:
        here = pa.ipc.open_file(source).read_all()
        with pa.OSFile(str(mounted.origin / "table.arrow")) as original:
            assert here.equals(pa.ipc.open_file(original).read_all())
        del here


def test_direct_reads(mounted: Mounted):
    """O_DIRECT at aligned offsets, from the last span to the first."""
    for path in ("array.npy", "train/cat/000.jpg"):
        want = (mounted.origin / path).read_bytes()
        fd = os.open(mounted.top / path, os.O_RDONLY | os.O_DIRECT)
        buffer = mmap.mmap(-1, 1 << 20)
        try:
            for offset in reversed(range(0, len(want), 1 << 20)):
                count = os.preadv(fd, [buffer], offset)
                assert buffer[:count] == want[offset : offset + (1 << 20)], (path, offset)
        finally:
            os.close(fd)


def test_64_threads(mounted: Mounted):
    def read(seed: int) -> list[str]:
        paths = sorted(mounted.sums)
        random.Random(seed).shuffle(paths)
        return [path for path in paths[:25] if sha256(mounted.top / path) != mounted.sums[path]]

    with ThreadPoolExecutor(THREADS) as pool:
        assert [path for wrong in pool.map(read, range(THREADS)) for path in wrong] == []


def test_10_000_open_files(mounted: Mounted):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < OPEN_FILES + 1000:
        resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES + 1000, OPEN_FILES + 1000))
        hard = OPEN_FILES + 1000
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES + 1000, hard))
    paths = [path for path in mounted.sums if path != "empty"]
    want = {path: (mounted.origin / path).read_bytes() for path in paths}
    dice, held = random.Random(4), []
    try:
        for number in range(OPEN_FILES):
            path = paths[number % len(paths)]
            held.append((path, os.open(mounted.top / path, os.O_RDONLY)))
        dice.shuffle(held)
        for path, fd in held:
            offset = dice.randrange(len(want[path]))
            assert os.pread(fd, 4096, offset) == want[path][offset : offset + 4096], path
    finally:
        for _, fd in held:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# -- what else a job expects of the files ----------------------------------------------------------


def test_any_user_may_read(mounted: Mounted):
    top = os.open(mounted.top, os.O_RDONLY | os.O_DIRECTORY)  # the way there is root's alone
    program = (
        "import hashlib, os, sys; os.fchdir(int(sys.argv[1])); os.setgroups([]);"
        "os.setgid(65534); os.setuid(65534);"
        "print(hashlib.sha256(open('train/cat/000.jpg', 'rb').read()).hexdigest(),"
        "len(os.listdir('train')))"
    )
    try:
        out = run(sys.executable, "-c", program, str(top), pass_fds=[top]).decode().split()
    finally:
        os.close(top)
    assert out == [mounted.sums["train/cat/000.jpg"], "3"]


def test_every_write_is_refused(mounted: Mounted):
    import errno

    file, directory = mounted.top / "train/cat/000.jpg", mounted.top / "train"
    libc = ctypes.CDLL(None, use_errno=True)

    def made_node() -> None:
        if libc.mknod(os.fsencode(directory / "pipe"), 0o010644, 0) < 0:
            raise OSError(ctypes.get_errno(), "mknod")

    attempts = {
        "write": lambda: os.open(file, os.O_WRONLY),
        "read and write": lambda: os.open(file, os.O_RDWR),
        "append": lambda: os.open(file, os.O_WRONLY | os.O_APPEND),
        "open truncates": lambda: os.open(file, os.O_WRONLY | os.O_TRUNC),
        "create": lambda: os.open(directory / "new", os.O_CREAT | os.O_WRONLY),
        "temporary": lambda: os.open(directory, os.O_TMPFILE | os.O_RDWR),
        "truncate": lambda: os.truncate(file, 1),
        "unlink": file.unlink,
        "rename": lambda: file.rename(directory / "other"),
        "rename over": lambda: file.rename(directory / "dog/000.jpg"),
        "mkdir": (directory / "new").mkdir,
        "rmdir": (directory / "cat").rmdir,
        "symlink": lambda: (directory / "link").symlink_to("x"),
        "link": lambda: (directory / "link").hardlink_to(file),
        "mknod": made_node,
        "chmod": lambda: file.chmod(0o777),
        "chown": lambda: os.chown(file, 1, 1),
        "utime": lambda: os.utime(file),
        "setxattr": lambda: os.setxattr(file, "user.x", b"1"),
        "removexattr": lambda: os.removexattr(file, "user.cacheop.etag"),
    }
    answers = {}
    for name, attempt in attempts.items():
        try:
            attempt()
            answers[name] = "done"
        except OSError as error:
            answers[name] = errno.errorcode[error.errno or 0]
    assert answers == dict.fromkeys(attempts, "EROFS")
    assert sha256(file) == mounted.sums["train/cat/000.jpg"]


def is_cached_once_read(path: Path) -> bool:
    """Whether reading brought it into the cache, as its attribute says.

    Not at the first try where the file was evicted a moment before: an fd of it that the mount
    process, or the kernel, has not let go yet still gives the right bytes. Nor while the kernel has
    pages of it: it would ask nobody.
    """
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        file.read()
    percent = os.getxattr(path, "user.cacheop.cached")
    assert percent in {b"0", b"100"}
    return percent == b"100"


def test_statfs_and_attributes(mounted: Mounted):
    if mounted.mode == "Native":
        pytest.skip("Native promises sizes, bytes and EROFS only")
    usage = os.statvfs(mounted.top)
    total = sum((mounted.origin / path).stat().st_size for path in mounted.sums)
    assert total <= usage.f_blocks * usage.f_frsize < total + usage.f_frsize
    assert usage.f_flag & os.ST_RDONLY
    path = mounted.top / "train/dog/001.jpg"
    wait_for(lambda: is_cached_once_read(path))
    assert sorted(os.listxattr(path)) == ["user.cacheop.cached", "user.cacheop.version"]
    assert os.getxattr(path, "user.cacheop.version").decode() == mounted.version
    info, original = path.stat(), (mounted.origin / "train/dog/001.jpg").stat()
    assert (info.st_mode & 0o7777, info.st_uid, info.st_gid) == (0o444, 0, 0)
    assert abs(info.st_mtime_ns - original.st_mtime_ns) < 1000  # as precise as the listing
    drop_kernel_caches(2)
    assert path.stat().st_ino == info.st_ino
