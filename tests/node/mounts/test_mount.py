"""The mount on the real kernel: names, attributes, bytes, errors."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import signal
import stat
import subprocess
import sys
import threading
import time

import pytest

from tests.fakes.stored_version import MTIME_NS, checksum, content
from tests.node.mounts.conftest import wait_for

pytestmark = pytest.mark.node

SIZES = [0, 1, 4095, 4096, 110_000, (1 << 20) + 1, (8 << 20) - 1, 8 << 20, (8 << 20) + 1, 20 << 20]


def sha256(path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def drop_kernel_pages(path) -> None:
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def test_whole_files_of_all_sizes_are_right_from_empty_and_from_the_store(mounted):
    files = {f"sizes/{size}.bin": size for size in SIZES}
    mount, _ = mounted(files)
    for _ in range(2):
        for path, size in files.items():
            assert sha256(mount.target / path) == checksum(path, size)
            drop_kernel_pages(mount.target / path)


def test_random_reads_of_a_partly_present_file_are_right(mounted):
    size = (20 << 20) + 12_345
    mount, store = mounted({"big": size})
    store.fill(store.index.resolve("big"), 1)
    dice = random.Random(7)
    with (mount.target / "big").open("rb", buffering=0) as file:
        for _ in range(200):
            offset, length = dice.randrange(size), dice.randrange(1, 300_000)
            got = os.pread(file.fileno(), length, offset)
            assert got == content("big", offset, min(length, size - offset))


def test_tree_shows_what_the_version_says(mounted):
    files = {
        "deep/" + "/".join([*(f"level{i}" for i in range(n)), f"file{n}"]): n for n in range(40)
    }
    files |= {f"odd/{name}": 3 for name in ["a b", "ü", "x" * 255, "-rf", "new\nline"]}
    mount, _ = mounted(files)
    found = {}
    for directory, _, names in os.walk(mount.target):
        for name in names:
            path = os.path.join(directory, name)
            info = os.stat(path)
            found[os.path.relpath(path, mount.target)] = info.st_size
            assert stat.S_IMODE(info.st_mode) == 0o444
            assert (info.st_uid, info.st_gid, info.st_mtime_ns) == (0, 0, MTIME_NS)
    assert found == files
    assert stat.S_IMODE((mount.target / "deep").stat().st_mode) == 0o555


def test_ls_of_ten_thousand_entries_is_the_model(mounted, tmp_path):
    files = {f"many/{n:05d}.jpg": n for n in range(10_000)} | {"many/sub/x": 1, "z": 5}
    mount, _ = mounted(files)
    model = tmp_path / "model"
    for path, size in files.items():
        (model / path).parent.mkdir(parents=True, exist_ok=True)
        (model / path).touch()
        os.truncate(model / path, size)
    command = "find . -type f -printf '%p %s\\n' | LC_ALL=C sort; LC_ALL=C ls -R"
    want = subprocess.run(command, shell=True, cwd=model, capture_output=True, check=True)
    for _ in range(2):
        got = subprocess.run(command, shell=True, cwd=mount.target, capture_output=True, check=True)
        assert got.stdout == want.stdout
    long = subprocess.run(["ls", "-lR", mount.target], capture_output=True, check=True, text=True)
    assert sum(line.startswith("-r--r--r--") for line in long.stdout.splitlines()) == len(files)


def test_writes_are_refused(mounted):
    mount, _ = mounted({"a/file": 10})
    file, directory = mount.target / "a/file", mount.target / "a"
    attempts = [
        lambda: file.open("r+b"),
        lambda: (directory / "new").open("wb"),
        file.unlink,
        lambda: file.rename(directory / "other"),
        (directory / "sub").mkdir,
        directory.rmdir,
        lambda: os.truncate(file, 1),
        lambda: file.chmod(0o777),
        lambda: os.utime(file),
        lambda: os.symlink("x", directory / "link"),
        lambda: os.link(file, directory / "link"),
        lambda: os.setxattr(file, "user.x", b"1"),
    ]
    for attempt in attempts:
        with pytest.raises(OSError) as caught:
            attempt()
        assert caught.value.errno == errno.EROFS
    assert sha256(file) == checksum("a/file", 10)


def test_any_user_may_read_once_the_way_is_open(mounted):
    mount, _ = mounted({"a/file": 1000})
    directory = os.open(mount.target, os.O_RDONLY)  # tmp_path itself is root's alone
    program = (
        f"import os, sys; os.setuid(65534); os.fchdir({directory});"
        "sys.stdout.buffer.write(open('a/file', 'rb').read())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, pass_fds=[directory], check=True
    )
    os.close(directory)
    assert done.stdout == content("a/file", 0, 1000)


def test_statfs_xattrs_and_seek(mounted):
    size = 10 << 20
    mount, store = mounted({"file": size})
    path = mount.target / "file"
    usage = os.statvfs(mount.target)
    assert usage.f_blocks * usage.f_frsize == size
    assert usage.f_flag & os.ST_RDONLY
    assert os.getxattr(path, "user.cacheop.cached") == b"0"
    store.fill(store.index.resolve("file"), 0)
    assert os.getxattr(path, "user.cacheop.cached") == b"50"
    assert os.getxattr(mount.target, "user.cacheop.version").decode() == store.version
    assert os.getxattr(path, "user.cacheop.etag").decode() == store.index.etag(0)
    names = ["user.cacheop.cached", "user.cacheop.etag", "user.cacheop.version"]
    assert sorted(os.listxattr(path)) == names
    with pytest.raises(OSError, match="No data available"):
        os.getxattr(path, "user.other")
    for name in ("system.posix_acl_access", "security.selinux"):
        with pytest.raises(OSError, match="not supported"):  # or `ls -l` asks for every file
            os.getxattr(path, name)
    fd = os.open(path, os.O_RDONLY)
    assert os.lseek(fd, 5, os.SEEK_DATA) == 5
    assert os.lseek(fd, 5, os.SEEK_HOLE) == size
    os.close(fd)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("OriginError", errno.EIO),
        ("OriginChanged", errno.ESTALE),
        ("CredentialError", errno.EACCES),
        ("SuspendedError", errno.EBUSY),
        ("NotFoundError", errno.ENOENT),
    ],
)
def test_errors_of_the_worker_become_the_errno_of_their_class(mounted, name, code):
    mount, _ = mounted({"bad": 10_000, "good": 10_000})
    mount.script(errors={"bad": name})
    with pytest.raises(OSError) as caught:
        (mount.target / "bad").read_bytes()
    assert caught.value.errno == code
    assert sha256(mount.target / "good") == checksum("good", 10_000)
    mount.script()  # the origin is well again: nothing bad was kept
    assert sha256(mount.target / "bad") == checksum("bad", 10_000)


def test_bytes_come_in_the_answer_when_the_cache_has_no_room(mounted):
    size = (9 << 20) + 17
    mount, store = mounted({"file": size})
    mount.script(no_room=["file"])
    assert sha256(mount.target / "file") == checksum("file", size)
    assert not store.path(0).exists()


def test_a_chunk_that_is_always_gone_again_comes_in_the_answer_or_ends_in_an_errno(mounted):
    mount, _ = mounted({"file": 1000, "other": 1000})
    mount.script(forget=["file", "other"])
    assert sha256(mount.target / "other") == checksum("other", 1000)
    mount.script(forget=["file"], deaf=True)
    with pytest.raises(OSError) as caught:
        (mount.target / "file").read_bytes()
    assert caught.value.errno == errno.EIO


def test_eviction_under_readers_is_never_seen(mounted):
    size = (16 << 20) + 999
    mount, _ = mounted({"big": size, "small": 50_000})
    mount.script(forget=[])
    stop = time.monotonic() + 4
    wrong: list[object] = []
    want = {"big": checksum("big", size), "small": checksum("small", 50_000)}

    def read(path: str) -> None:
        while time.monotonic() < stop:
            drop_kernel_pages(mount.target / path)
            try:
                if sha256(mount.target / path) != want[path]:
                    wrong.append(path)
            except OSError as error:
                wrong.append(error)

    threads = [threading.Thread(target=read, args=(path,)) for path in want]
    for thread in threads:
        thread.start()
    while time.monotonic() < stop:
        time.sleep(0.1)
        mount.evict("big", "small")
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(mount.requests("read small")) > 3


def test_a_killed_reader_leaves_a_waiting_read_at_once(mounted):
    mount, _ = mounted({"slow": 1000})
    mount.script(delay_seconds=30)
    reader = subprocess.Popen(["cat", mount.target / "slow"], stdout=subprocess.DEVNULL)
    wait_for(lambda: mount.requests("read slow"))
    started = time.monotonic()
    reader.send_signal(signal.SIGINT)
    reader.wait(timeout=5)
    assert time.monotonic() - started < 1


def test_openings_are_counted_and_streams_are_read_ahead(mounted):
    mount, store = mounted({"a": 10, "stream": 60 << 20})
    store.fill_file(store.index.resolve("a"))
    for _ in range(3):
        (mount.target / "a").read_bytes()
    wait_for(
        lambda: sum(int(times) for path, times in mount.requests("touched") if path == "a") == 3
    )
    with (mount.target / "stream").open("rb", buffering=0) as file:
        for _ in range(12):
            file.read(1 << 20)
    wait_for(lambda: any(r[2] == "1" for r in mount.requests("read stream")))
    assert sha256(mount.target / "stream") == checksum("stream", 60 << 20)
