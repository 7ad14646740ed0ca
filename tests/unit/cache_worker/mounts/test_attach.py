from __future__ import annotations

from cache_worker.mounts.attach import mounted_at

INFO = """\
21 1 254:0 / / rw,relatime - ext4 /dev/vda rw
42 21 0:39 / /mnt/a\\040b ro,nosuid - fuse.cacheop cacheop ro,user_id=0
43 21 0:40 / /mnt/two rw shared:1 master:2 - tmpfs none rw
44 43 0:41 / /mnt/two ro - fuse.cacheop cacheop ro
45 21 0:42 / /mnt/back\\134slash rw - tmpfs none rw
"""


def test_type_and_device():
    assert mounted_at("/mnt/a b", INFO) == ("fuse.cacheop", "0:39")
    assert mounted_at("/mnt/back\\slash", INFO) == ("tmpfs", "0:42")
    assert mounted_at("/", INFO) == ("ext4", "254:0")


def test_the_topmost_of_two():
    assert mounted_at("/mnt/two", INFO) == ("fuse.cacheop", "0:41")


def test_nothing_there():
    assert mounted_at("/mnt", INFO) is None
    assert mounted_at("/mnt/two", "") is None
