"""Whose mount it is, read from the kernel's list."""

from __future__ import annotations

from pathlib import Path

import pytest

from cacheop.cli import mountinfo

TEXT = r"""22 1 8:1 / / rw - ext4 /dev/sda1 rw
30 22 8:2 /disks/a /var/cache rw,noatime shared:1 master:2 - ext4 /dev/sdb rw
31 22 0:57 / /mnt/x ro - fuse.cacheop cacheop ro
32 22 8:2 /disks/a/cacheop/default/demo/local/data/ab /mnt/native ro - ext4 /dev/sdb rw
33 22 8:2 /disks/a/cacheop/default/other/local/data/ab /mnt/other ro - ext4 /dev/sdb rw
34 22 8:1 /cacheop/default/demo/local/data/ab /mnt/device ro - ext4 /dev/sda1 rw
35 22 0:30 / /mnt/with\040blank rw - tmpfs tmpfs rw
36 31 0:31 / /mnt/x rw - tmpfs tmpfs rw
broken line
"""
ROOT = Path("/var/cache/cacheop/default/demo/local")


def at(target):
    return mountinfo.at(Path(target), mountinfo.parse(TEXT))


def test_the_topmost_mount_counts():
    assert at("/mnt/x").type == "tmpfs"
    assert at("/mnt/with blank").device == "0:30"
    assert at("/mnt") is None


@pytest.mark.parametrize(
    ("target", "ours"),
    [("/mnt/native", True), ("/mnt/other", False), ("/mnt/device", False), ("/mnt/x", False)],
)
def test_a_bind_of_our_own_files_is_ours(target, ours):
    mounts = mountinfo.parse(TEXT)
    assert mountinfo.is_ours(at(target), [ROOT], mounts) is ours
    assert mountinfo.is_ours(at(target), [], mounts) is False


def test_a_fuse_mount_of_ours_is_ours():
    mounts = mountinfo.parse(TEXT)
    assert mountinfo.is_ours(mounts[2], [], mounts)
