"""What is ours among mounts, from mountinfo's text alone."""

from __future__ import annotations

from cache_worker.csi import seen
from cache_worker.holder import mountinfo

TEXT = """\
20 1 254:0 / / rw - ext4 /dev/root rw
30 20 254:16 / /var/cache rw shared:2 - ext4 /dev/vdb rw
31 20 254:16 /v/d/u1 /k/pods/w/cache/mount rw,nosuid,nodev - ext4 /dev/vdb rw
32 20 254:16 /v/d/u1/data/ab /k/pods/n/mount ro - ext4 /dev/vdb rw
33 20 0:50 / /k/pods/f/mount ro - fuse.cacheop cacheop:/var/cache/v/d/u1 ro
34 20 0:51 / /k/pods/c/mount ro - tmpfs cacheop-client:/var/cache/v/d/u1 rw
35 34 254:16 /v/d/u1/data /k/pods/c/mount/data ro - ext4 /dev/vdb rw
36 20 0:52 / /k/pods/x/mount rw - tmpfs theirs rw
37 20 254:16 /v/d/u2//deleted /k/pods/old/mount rw - ext4 /dev/vdb rw
38 20 254:0 /v/d/u1 /k/pods/y/mount rw - ext4 /dev/root rw
39 20 254:16 /v/d /k/pods/z/mount rw - ext4 /dev/vdb rw
"""
MOUNTS = mountinfo.parse(TEXT)
ROOT = "/var/cache/v/d/u1"


def test_each_kind_is_known_by_what_mountinfo_says():
    def at(pod):
        found = seen.at(MOUNTS, f"/k/pods/{pod}/mount", ["/var/cache"])
        return None if found is None else (found.kind, found.root, found.is_read_only)

    assert at("w/cache") == (seen.CACHE, ROOT, False)
    assert at("n") == (seen.NATIVE, ROOT, True)
    assert at("f") == (seen.FUSE, ROOT, True)
    assert at("c") == (seen.VIEW, ROOT, True)
    assert at("old") == (seen.CACHE, "/var/cache/v/d/u2", False)
    assert [at(pod) for pod in ("x", "y", "z", "none")] == [None] * 4


def test_everything_that_shows_a_dataset_is_found():
    targets = {found.target for found in seen.below(MOUNTS, ROOT, ["/var/cache"])}
    assert targets == {
        f"/k/pods/{pod}"
        for pod in ("w/cache/mount", "n/mount", "f/mount", "c/mount", "c/mount/data")
    }
