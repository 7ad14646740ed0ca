"""Making and removing FUSE mounts. Used by the supervisor, as root; nothing here reads a mount.

A dead mount hangs or fails whoever touches it, so what is mounted is read from mountinfo only.
"""

from __future__ import annotations

import ctypes
import errno
import os
import time

from cacheop.api.errors import StoreError, UserError

FUSE_TYPE = "fuse.cacheop"
READ_MAX_BYTES = 1 << 20
READAHEAD_KB = 8192
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MNT_DETACH = 1, 2, 4, 2
_ESCAPES = (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\"))
# mountinfo: id, parent, major:minor, root, target, options, optional fields…, "-", type, …
_PROBE_SECONDS = 2.0
_DEVICE_FIELD, _TARGET_FIELD, _LEAST_FIELDS = 2, 4, 7

_libc = ctypes.CDLL(None, use_errno=True)


def mounted_at(target: str, mountinfo: str) -> tuple[str, str] | None:
    """(type, device "major:minor") of the topmost mount at `target`; None if there is none."""
    found = None
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        if len(fields) < _LEAST_FIELDS or "-" not in fields:
            continue
        where = fields[_TARGET_FIELD]
        for escape, character in _ESCAPES:
            where = where.replace(escape, character)
        if where == target:
            found = fields[fields.index("-") + 1], fields[_DEVICE_FIELD]
    return found


def read_mountinfo() -> str:
    """The mounts this process sees."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def check_possible() -> None:
    """UserError that says what is missing for a FUSE mount."""
    if os.geteuid() != 0:
        raise UserError(
            "a mount needs root",
            hint="Run as root, or leave the mount out and read through cacheop://",
        )
    if not os.path.exists("/dev/fuse"):
        raise UserError(
            "a mount needs /dev/fuse, which is not here",
            hint="Load the kernel module fuse, or pass the device to the container",
        )


def prepare(target: str) -> str:
    """The directory to mount at, absolute; a dead mount of ours there is removed first.

    Raises UserError when something else is mounted there, or it holds files.
    """
    # Only the parent is resolved: a dead mount at the target itself must not be touched.
    parent, name = os.path.split(os.path.abspath(target))
    target = os.path.join(os.path.realpath(parent), name)
    while (found := mounted_at(target, read_mountinfo())) is not None:
        if found[0] != FUSE_TYPE or is_served(target):
            raise UserError(
                f"cannot mount at {target}: a file system of type {found[0]} is mounted there",
                hint="Unmount it, stop what serves it, or choose another directory",
            )
        detach(target)
    try:
        os.makedirs(target, exist_ok=True)
        if os.listdir(target):
            raise UserError(
                f"cannot mount at {target}: the directory is not empty",
                hint="Choose an empty or new directory; its files would be hidden",
            )
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(
            f"cannot mount at {target}: it is not a directory", hint="Choose a directory"
        ) from error
    return target


def is_served(target: str) -> bool:
    """Whether a FUSE mount still has a server: one whose connection ended answers ENOTCONN.

    Asked in a child with a deadline, as a server that hangs would hang whoever asks.
    """
    child = os.fork()
    if child == 0:
        try:
            os.statvfs(target)
        except OSError as error:
            os._exit(1 if error.errno == errno.ENOTCONN else 0)
        os._exit(0)
    deadline = time.monotonic() + _PROBE_SECONDS
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.005)
    os.kill(child, 9)  # it may stay until that server answers; init reaps it after us
    return True


def attach(target: str) -> int:
    """Mount at `target` and return the FUSE fd (close-on-exec). Raises StoreError."""
    fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={fd},rootmode=40000,user_id=0,group_id=0,allow_other,max_read={READ_MAX_BYTES}"
    flags = _MS_RDONLY | _MS_NOSUID | _MS_NODEV
    where = os.fsencode(target)
    if _libc.mount(b"cacheop", where, FUSE_TYPE.encode(), flags, options.encode()) < 0:
        code = ctypes.get_errno()
        os.close(fd)
        raise StoreError(
            f"cannot mount at {target}: {os.strerror(code)}",
            hint="The process needs CAP_SYS_ADMIN in this container",
        )
    return fd


def widen_readahead(target: str) -> bool:
    """Let the kernel read 8 MiB ahead (an INIT answer cannot raise its 128 KiB). False if refused.

    Streams then keep several 1 MiB reads in the air. Harmless to lack, only slower.
    """
    found = mounted_at(target, read_mountinfo())
    if found is None:
        return False
    try:
        with open(f"/sys/class/bdi/{found[1]}/read_ahead_kb", "w", encoding="ascii") as file:
            file.write(str(READAHEAD_KB))
    except OSError:  # /sys is read-only in many containers
        return False
    return True


def detach(target: str) -> None:
    """Unmount `target` lazily; who has files open keeps them until the connection ends."""
    if _libc.umount2(os.fsencode(target), _MNT_DETACH) < 0:
        code = ctypes.get_errno()
        raise StoreError(f"cannot unmount {target}: {os.strerror(code)}")
