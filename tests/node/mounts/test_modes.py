"""Modes Fuse and ZeroOpen on the real kernel: what reaches the process, and what falls back."""

from __future__ import annotations

import errno
import hashlib
import os
import time

import pytest

from cache_worker.holder import mounting
from tests.fakes.stored_version import checksum
from tests.node.mounts.conftest import wait_for
from tests.node.mounts.test_ring import served

__all__ = ["served"]  # a fixture
pytestmark = pytest.mark.node

FILES = {f"dir/f{n}": 110_000 for n in range(20)}


def epoch(mount) -> None:
    for path in FILES:
        fd = os.open(mount.target / path, os.O_RDONLY)  # Python's open() asks for an ioctl besides
        data = os.read(fd, 200_000)
        os.close(fd)
        assert hashlib.sha256(data).hexdigest() == checksum(path, 110_000)
    assert len(os.listdir(mount.target / "dir")) == len(FILES)


def test_a_warm_epoch_costs_no_request_in_zero_open(served):
    mount = served(FILES, mode="ZeroOpen")
    mount.store.fill_all()
    mount.serve()
    epoch(mount)
    before = mount.ring.requests()
    epoch(mount)
    assert mount.ring.requests() == before
    assert before["OPEN"] == before["OPENDIR"] == 1


def test_a_warm_epoch_costs_opens_and_releases_in_fuse(served):
    mount = served(FILES)
    mount.store.fill_all()
    mount.serve()
    epoch(mount)
    before = mount.ring.requests()
    epoch(mount)
    more = {op: n - before.get(op, 0) for op, n in mount.ring.requests().items()}
    assert {op for op, n in more.items() if n} <= {"OPEN", "RELEASE", "OPENDIR", "RELEASEDIR"}


def test_zero_open_on_a_kernel_that_cannot_is_served_as_fuse(served):
    mount = served(FILES, mode="ZeroOpen")
    mount.store.fill_all()
    mount.serve(CACHEOP_MASK_INIT="17")
    epoch(mount)
    epoch(mount)
    assert mount.ring.requests()["OPEN"] == 2 * len(FILES)


@pytest.mark.parametrize("mode", ["Fuse", "ZeroOpen"])
def test_what_is_missing_comes_from_the_worker(served, mode):
    mount = served(FILES, mode=mode)
    mount.work()
    for lane in range(2):
        mount.serve(lane)
    epoch(mount)


def test_without_a_worker_reads_end_in_eio_after_the_grace_time_and_work_again(served):
    mount = served(FILES, grace=1.0)
    mount.serve()
    started = time.monotonic()
    with pytest.raises(OSError) as caught:
        (mount.target / "dir/f0").read_bytes()
    assert caught.value.errno == errno.EIO
    assert 0.8 < time.monotonic() - started < 10
    mount.work()
    wait_for(lambda: _reads(mount))


def _reads(mount) -> bool:
    try:
        return (mount.target / "dir/f1").stat() and bool((mount.target / "dir/f1").read_bytes())
    except OSError:
        return False


def test_files_that_are_not_there_are_waited_for_then_refused(served):
    mount = served(FILES, grace=1.0)
    mount.store.fill_all()
    index = mount.root / "manifest" / f"{mount.store.version}.index"
    index.rename(mount.root / "hidden")
    mount.serve()
    with pytest.raises(OSError) as caught:
        os.listdir(mount.target)
    assert caught.value.errno == errno.EIO
    (mount.root / "hidden").rename(index)
    wait_for(lambda: _lists(mount))
    epoch(mount)


def _lists(mount) -> bool:
    try:
        return bool(os.listdir(mount.target))
    except OSError:
        return False


def test_the_process_ends_with_its_mount(served):
    mount = served(FILES)
    process = mount.serve()
    os.listdir(mount.target)
    mounting.detach(str(mount.target))
    assert process.wait(10) == 0
    mounting.attach(str(mount.target), str(mount.root))  # so that closing finds something to detach


def test_a_process_called_wrongly_says_so(served):
    mount = served(FILES)
    mount.serve(CACHEOP_MASK_INIT="x")
    assert mount.processes[0].wait(10) == 2
    assert "no list of bit numbers" in mount.log.read_text()
