"""Versions side by side, what is evicted under its readers, and unmounting while busy."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fakes.running_node import RunningNode, is_served, mounts_at, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [
    pytest.mark.node,
    pytest.mark.skipif(
        os.geteuid() != 0 or not Path("/dev/fuse").exists(), reason="needs root and /dev/fuse"
    ),
]

MODES = ("Native", "ZeroOpen", "Passthrough", "Fuse")
FUSE_MODES = MODES[1:]
SIZES = {f"d{i % 3}/{i:02d}": 30_000 + 977 * i for i in range(30)} | {"big": 19 << 20}


def sha256(path: Path | str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def place(directory: Path, seed: str) -> dict[str, str]:
    """The files of one version at the origin; their checksums."""
    sums = {}
    for path, size in SIZES.items():
        data = random.Random(f"{seed} {path}").randbytes(size)
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        new = directory / f"{path}.new"
        new.write_bytes(data)
        new.rename(directory / path)
        sums[path] = hashlib.sha256(data).hexdigest()
    return sums


@pytest.fixture
def make_node(tmp_path: Path) -> Iterator[Callable[..., RunningNode]]:
    """Makes a node over tmp_path/origin; `modes`: one mount each, at m0, m1, …"""
    made: list[RunningNode] = []

    def make(*modes: str) -> RunningNode:
        mounts = []
        for number, mode in enumerate(modes):
            (tmp_path / f"m{number}").mkdir(exist_ok=True)
            mounts.append({"target": str(tmp_path / f"m{number}"), "mode": mode, "version": ""})
        node = RunningNode(tmp_path / "node", f"file://{tmp_path}/origin", mounts)
        made.append(node)
        return node

    yield make
    for node in made:
        node.close()


def all_sums(top: Path) -> dict[str, str]:
    return {path: sha256(top / path) for path in SIZES}


@pytest.mark.parametrize("mode", MODES)
def test_two_versions_at_once_each_with_its_own_bytes(make_node, tmp_path: Path, mode: str):
    first = place(tmp_path / "origin", "first")
    node = make_node("Fuse")  # so that there is a holder to ask
    node.start()
    node.call("load")
    old = node.status()["version"]
    second = place(tmp_path / "origin", "second")
    node.call("refresh")
    node.call("load")
    new = node.status()["version"]
    assert old != new
    targets = {}
    for version in (old, new):
        target = tmp_path / f"v-{version}"
        target.mkdir()
        node.targets.append(target)
        targets[version] = target
        answer = node.ask_holder(
            {"op": "publish", "target": str(target), "mode": mode, "version": version}, 30
        )
        assert answer["mount"]["version"] == version, answer
        assert answer["mount"]["mode"] == mode, answer
    wait_for(lambda: all(is_served(mount) for mount in node.report()))
    for _ in range(2):
        assert all_sums(targets[old]) == first
        assert all_sums(targets[new]) == second
        if mode != "Native":
            node.replace("mount")
    assert node.ask_holder({"op": "unpublish", "target": str(targets[old])}) == {"ok": True}
    assert mounts_at(targets[old]) == []
    assert all_sums(targets[new]) == second
    assert all_sums(node.targets[0]) == first


def test_two_mounts_of_config_are_two_mounts(make_node, tmp_path: Path):
    sums = place(tmp_path / "origin", "only")
    node = make_node("ZeroOpen", "Fuse")
    node.start()
    assert [mount["mode"] for mount in sorted(node.report(), key=lambda m: m["target"])] == [
        "ZeroOpen",
        "Fuse",
    ]
    assert all_sums(node.targets[0]) == sums
    assert all_sums(node.targets[1]) == sums
    subprocess.run(["umount", node.targets[0]], check=True)
    wait_for(lambda: mounts_at(node.targets[0]) == [])
    assert all_sums(node.targets[1]) == sums


@pytest.mark.parametrize("mode", FUSE_MODES)
def test_open_files_keep_their_bytes_when_evicted_and_others_are_filled_again(
    make_node, tmp_path: Path, mode: str
):
    sums = place(tmp_path / "origin", "only")
    node = make_node(mode)
    node.start()
    node.call("load")
    top, stop, wrong = node.targets[0], time.monotonic() + 5, []
    held = {path: (top / path).open("rb", buffering=0) for path in sorted(SIZES)[::2]}

    def read(seed: int) -> None:
        dice = random.Random(seed)
        while time.monotonic() < stop:
            path = dice.choice(list(held) if seed % 2 else sorted(SIZES))
            with contextlib.ExitStack() as stack:
                file = held[path] if seed % 2 else stack.enter_context((top / path).open("rb"))
                fd = file.fileno()
                try:
                    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                    data = b"".join(
                        os.pread(fd, 1 << 20, offset) for offset in range(0, SIZES[path], 1 << 20)
                    )
                except OSError as error:
                    wrong.append(f"{path}: {error}")
                    continue
            if hashlib.sha256(data).hexdigest() != sums[path]:
                wrong.append(f"{path}: other bytes")

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    evicted = 0
    while time.monotonic() < stop:
        time.sleep(0.2)
        evicted += node.call("evict")["files"]
    for thread in threads:
        thread.join(timeout=30)
        assert not thread.is_alive(), "a reader hangs"
    for file in held.values():
        file.close()
    assert wrong == []
    assert evicted > len(SIZES)  # again and again, so they were filled again


# -- while busy ------------------------------------------------------------------------------------

BUSY = """
import os, sys, time
os.chdir(sys.argv[1])
held = open("big", "rb", buffering=0)
held.read(1000)
print("busy", flush=True)
while True:
    try:
        held.seek(0)
        os.posix_fadvise(held.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        held.read(1 << 20)
        os.listdir(".")
    except OSError as error:
        print(error.errno, flush=True)
    time.sleep(0.05)
"""


def open_fds(node: RunningNode) -> dict[int, int]:
    """How many files those have open that live longer than a mount."""
    pids = node.pids()
    return {pid: len(os.listdir(f"/proc/{pid}/fd")) for pid in pids["holder"] + pids["supervisor"]}


@pytest.mark.parametrize("mode", MODES)
def test_a_busy_mount_can_be_unmounted_at_once(make_node, tmp_path: Path, mode: str):
    place(tmp_path / "origin", "only")
    node = make_node("Fuse")
    node.start()
    node.call("load")
    target = tmp_path / "busy"
    target.mkdir()
    held = open_fds(node)
    node.targets.append(target)
    node.ask_holder({"op": "publish", "target": str(target), "mode": mode, "version": ""}, 30)
    wait_for(lambda: is_served(node.mount_at(target)))
    assert node.mount_at(target)["mode"] == mode
    reader = subprocess.Popen([sys.executable, "-c", BUSY, target], stdout=subprocess.PIPE)
    try:
        assert reader.stdout.readline() == b"busy\n"
        # Not before: who answers may be there a little later than the mount.
        before = {role: len(pids) for role, pids in node.pids().items()}
        started = time.monotonic()
        assert node.ask_holder({"op": "unpublish", "target": str(target)}) == {"ok": True}
        assert time.monotonic() - started < 2
        assert mounts_at(target) == []
        assert list(target.iterdir()) == []
        if mode != "Native":  # there the files stay: a bind mount is only a way to them
            code = int(reader.stdout.readline())
            assert code in {errno.ENOTCONN, errno.ECONNABORTED, errno.EIO}
            wait_for(lambda: len(node.pids()["mount"]) < before["mount"])
    finally:
        reader.kill()
        reader.wait()
    assert [mount["target"] for mount in node.report()] == [str(tmp_path / "m0")]
    wait_for(lambda: open_fds(node) == held)
    assert sha256(node.targets[0] / "d0/00")


def test_stopping_while_busy_leaves_nothing(make_node, tmp_path: Path):
    place(tmp_path / "origin", "only")
    node = make_node("Passthrough", "ZeroOpen", "Fuse")
    connections = len(os.listdir("/sys/fs/fuse/connections"))
    node.start()
    readers = [
        subprocess.Popen([sys.executable, "-c", BUSY, target], stdout=subprocess.PIPE)
        for target in node.targets
    ]
    try:
        for reader in readers:
            assert reader.stdout.readline() == b"busy\n"
        pids = node.all_pids()
        node.stop()
        assert [mounts_at(target) for target in node.targets] == [[], [], []]
        assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
        assert not list((node.root / "mounts").glob("*.json"))
    finally:
        for reader in readers:
            reader.kill()
            reader.wait()
    wait_for(lambda: len(os.listdir("/sys/fs/fuse/connections")) <= connections)
