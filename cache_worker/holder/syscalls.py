"""System calls that Python lacks. Each raises OSError; the numbers are alike on all machines."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

RESOLVE_NO_XDEV, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH = 0x01, 0x04, 0x08
STRICT = RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH
MS_RDONLY, MS_NOSUID, MS_NODEV = 1, 2, 4
_MS_NOEXEC, _MS_REMOUNT, _MS_BIND = 8, 32, 4096
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC = 1, 2, 4, 8

_OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT = 428, 429, 430, 431, 432
_OPENAT2, _MOUNT_SETATTR = 437, 442
_AT_FDCWD, _AT_EMPTY_PATH = -100, 0x1000
_OPEN_TREE_CLONE, _MOVE_MOUNT_F_EMPTY_PATH = 0x1, 0x4
_CLOEXEC = 0x1  # of fsopen and fsmount
_FSCONFIG_CMD_CREATE, _MNT_DETACH = 6, 2
_OPEN_HOW = struct.Struct("<QQQ")  # flags, mode, resolve
_MOUNT_ATTR = struct.Struct("<QQQQ")  # set, clear, propagation, user namespace

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def openat2(directory: int, path: str, flags: int, resolve: int = STRICT) -> int:
    """Open `path` beneath the fd `directory`: by default through no symlink and no other mount."""
    how = _OPEN_HOW.pack(flags | os.O_CLOEXEC, 0, resolve)
    return _call("openat2", _OPENAT2, directory, os.fsencode(path), how, len(how))


def clone_tree(directory: int) -> int:
    """A detached bind mount of the open `directory`, as an fd."""
    flags = _OPEN_TREE_CLONE | _AT_EMPTY_PATH | os.O_CLOEXEC
    return _call("open_tree", _OPEN_TREE, directory, b"", flags)


def restrict(mount: int, attributes: int) -> None:
    """Set MOUNT_ATTR_… on the detached `mount`."""
    packed = _MOUNT_ATTR.pack(attributes, 0, 0, 0)
    _call("mount_setattr", _MOUNT_SETATTR, mount, b"", _AT_EMPTY_PATH, packed, len(packed))


def move_mount(mount: int, target: str) -> None:
    """Attach the detached `mount` at `target`."""
    path = os.fsencode(target)
    _call("move_mount", _MOVE_MOUNT, mount, b"", _AT_FDCWD, path, _MOVE_MOUNT_F_EMPTY_PATH)


def private_mount(kind: str) -> int:
    """A new mount of file system `kind` that is attached nowhere, as an fd to open paths from."""
    context = _call("fsopen", _FSOPEN, kind.encode(), _CLOEXEC)
    try:
        _call("fsconfig", _FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0)
        return _call("fsmount", _FSMOUNT, context, _CLOEXEC, 0)
    finally:
        os.close(context)


def mount(source: str, target: str, kind: str, flags: int, options: str) -> None:
    """mount(2)."""
    names = os.fsencode(source), os.fsencode(target), kind.encode()
    if _libc.mount(*names, ctypes.c_ulong(flags), options.encode()) < 0:
        raise _error("mount")


def detach(target: str) -> None:
    """Unmount `target` lazily: it is gone at once, who has files open keeps them."""
    if _libc.umount2(os.fsencode(target), _MNT_DETACH) < 0:
        raise _error("umount2")


def rebind_read_only(target: str) -> None:
    """Make the one mount at `target` read-only."""
    flags = _MS_REMOUNT | _MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | _MS_NOEXEC
    mount("", target, "", flags, "")


@contextlib.contextmanager
def as_user(uid: int, gid: int) -> Iterator[None]:
    """Meanwhile this thread, and no other, makes and opens files as that user.

    seteuid(2) of the C library would change all threads.
    """
    _libc.setfsgid(gid)
    _libc.setfsuid(uid)
    try:
        yield
    finally:
        _libc.setfsuid(os.geteuid())
        _libc.setfsgid(os.getegid())


def _call(name: str, number: int, *arguments: int | bytes | None) -> int:
    """syscall(2); integers go as long, as the kernel reads whole registers."""
    given = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result: int = _libc.syscall(ctypes.c_long(number), *given)
    if result < 0:
        raise _error(name)
    return result


def _error(name: str) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, f"{name}: {os.strerror(code)}")
