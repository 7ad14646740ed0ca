from __future__ import annotations

import pytest

from cache_worker.holder import mountinfo

TEXT = r"""22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /tmp rw - tmpfs tmpfs rw
31 30 0:57 / /tmp/a\040b ro,nosuid shared:3 master:2 - fuse.cacheop cacheop:/x\134y ro
32 30 8:1 /cache/data/ab /tmp/bound ro - ext4 /dev/sda1 rw
33 30 0:58 / /tmp/bound ro - fuse.cacheop cacheop:/x ro
garbage
34 30 0:59 / /half - ext4
"""


def test_targets_sources_and_what_is_topmost():
    mounts = mountinfo.parse(TEXT)
    found = mountinfo.topmost(mounts, "/tmp/a b")
    assert found is not None
    assert (found.kind, found.device, found.source) == ("fuse.cacheop", "0:57", r"cacheop:/x\y")
    assert found.options == ["ro", "nosuid"]
    top = mountinfo.topmost(mounts, "/tmp/bound")
    assert top is not None
    assert top.device == "0:58"
    assert mountinfo.topmost(mounts, "/half") is None


@pytest.mark.parametrize(
    ("path", "device", "inner"),
    [
        ("/tmpx/y", "8:1", "/tmpx/y"),
        ("/tmp", "0:40", "/"),
        ("/tmp/z", "0:40", "/z"),
        ("/", "8:1", "/"),
        ("/tmp/bound/f", "0:58", "/f"),
    ],
)
def test_where_a_path_lies(path, device, inner):
    found = mountinfo.holding(mountinfo.parse(TEXT), path)
    assert found is not None
    assert (found[0].device, found[1]) == (device, inner)


def test_where_a_path_lies_below_a_bind():
    mounts = [m for m in mountinfo.parse(TEXT) if m.device != "0:58"]
    found = mountinfo.holding(mounts, "/tmp/bound/f")
    assert found is not None
    assert found[1] == "/cache/data/ab/f"


def test_nothing_is_mounted():
    assert mountinfo.holding([], "/x") is None
