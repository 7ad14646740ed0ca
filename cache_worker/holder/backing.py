"""Files that the kernel reads by itself: the checks, the ioctls, and the table of backing ids.

A file is named by its path below `<root>` and opened here, so nobody can slip in another. The ids
lie in a memfd that only the holder can write; mount processes map it read-only.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import stat
import struct

from cache_worker.holder import syscalls
from cacheop.api import names

BACKING_OPEN, BACKING_CLOSE = 0x4010E501, 0x4004E502  # FUSE_DEV_IOC_BACKING_…
RING_BYTES = 16 << 20
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
FIRST_NODE = 2  # node id = row + 2; 1 is the root
_BACKING_MAP = struct.Struct("<iIQ")  # fd, flags, padding
_ID = struct.Struct("<I")
_IDS_NAME = "cacheop-ids"


def ids_bytes(rows: int) -> int:
    """Size of the table for a version of that many rows."""
    return _ID.size * (rows + FIRST_NODE)


def open_file(root: int, owner: int, version: str, path: str) -> int:
    """The regular file `path` = data/<version>/…, opened beneath the fd `root`. Raises OSError.

    Its `owner` must be the cache's: a hard link to somebody's file is not the worker's to show.
    """
    below = path.startswith(f"{names.data_path(version)}/")
    if not below or "\0" in path or ".." in path.split("/"):
        raise OSError(errno.EINVAL, f"not below {names.data_path(version)}")
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
    fd = syscalls.openat2(root, path, flags)
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file")
    if found.st_uid != owner:
        os.close(fd)
        raise OSError(errno.EPERM, "the file's owner is not the cache's")
    return fd


class BackingIds:
    """The backing ids of one FUSE connection."""

    def __init__(self, fuse: int, ids: int, rows: int) -> None:
        self._fuse = fuse
        self._rows = rows
        # `ids` may be a read-only fd: that is all that others get. The file's owner can do more.
        writable = os.open(f"/proc/self/fd/{ids}", os.O_RDWR | os.O_CLOEXEC)
        try:
            self._map = mmap.mmap(writable, ids_bytes(rows))
        finally:
            os.close(writable)

    def has(self, node: int) -> bool:
        """Whether `node` can have an id at all."""
        return FIRST_NODE <= node < self._rows + FIRST_NODE

    def get(self, node: int) -> int:
        """The id of `node`, 0 = none."""
        found: int = _ID.unpack_from(self._map, node * _ID.size)[0]
        return found

    def register(self, node: int, fd: int) -> int:
        """Give the kernel the file `fd` for `node`, once; its id. Raises OSError."""
        found = self.get(node)
        if not found:
            argument = bytearray(_BACKING_MAP.pack(fd, 0, 0))
            found = fcntl.ioctl(self._fuse, BACKING_OPEN, argument, True)
            # After the kernel has it and before anybody is told: a holder killed in between leaves
            # an id that is never used, not one that is wrong.
            _ID.pack_into(self._map, node * _ID.size, found)
        return found

    def unregister(self, node: int) -> None:
        """Forget the id of `node` and let the kernel close its file. Raises OSError."""
        found = self.get(node)
        if found:
            _ID.pack_into(self._map, node * _ID.size, 0)
            fcntl.ioctl(self._fuse, BACKING_CLOSE, bytearray(_ID.pack(found)), True)

    def close(self) -> None:
        """Let go of the table, not of the ids."""
        self._map.close()
