"""Native: this node's own tree of a version, bound read-only, with the lock that pins it there."""

from __future__ import annotations

import fcntl
import os
import stat

from cache_worker.holder import mountinfo, syscalls
from cacheop.api import names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cache_worker.holder.mountinfo import Mounted

ATTRIBUTES = (
    syscalls.MOUNT_ATTR_RDONLY
    | syscalls.MOUNT_ATTR_NOSUID
    | syscalls.MOUNT_ATTR_NODEV
    | syscalls.MOUNT_ATTR_NOEXEC
)


def lock(root: int, version: str) -> int:
    """The open directory of `version` beneath the fd `root`, with a shared flock.

    As long as anybody holds this open file description, the worker evicts nothing of the version.
    Raises OSError; BlockingIOError: the worker is looking at it or drops it just now.
    """
    fd = syscalls.openat2(root, names.data_path(version), os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise
    return fd


def bind(locked: int, target: str) -> None:
    """Show the directory `locked` at `target`. Raises OSError."""
    tree = syscalls.clone_tree(locked)
    try:
        syscalls.restrict(tree, ATTRIBUTES)
        syscalls.move_mount(tree, target)
    finally:
        os.close(tree)


def is_bound(mounts: list[Mounted], target: str, root: str, version: str) -> bool:
    """Whether one of the mounts at `target` is the tree of `version` in the store at `root`."""
    store = mountinfo.holding(mounts, f"{root}/{names.data_path(version)}")
    return store is not None and any(
        seen.target == target and (seen.device, seen.inner) == (store[0].device, store[1])
        for seen in mounts
    )


def is_lock(fd: int, root: int, version: str) -> bool:
    """Whether `fd` (from the supervisor) is that directory, locked."""
    try:
        here = os.stat(names.data_path(version), dir_fd=root, follow_symlinks=False)
        given = os.fstat(fd)
        if not stat.S_ISDIR(given.st_mode) or not os.path.samestat(here, given):
            return False
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # no change if it holds the lock already
    except OSError:  # also an O_PATH fd: it cannot hold a lock
        return False
    return True
