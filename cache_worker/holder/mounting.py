"""Making and removing mounts: where they may go, FUSE mounts, the end of a connection.

A dead mount hangs or fails whoever touches it, so what is mounted is read from mountinfo only.
"""

from __future__ import annotations

import errno
import os
import time

from cache_worker.holder import mountinfo, syscalls
from cacheop.api.errors import StoreError, UserError

FUSE_TYPE = "fuse.cacheop"
READ_MAX_BYTES = 1 << 20
READAHEAD_KB = 8192
_PROBE_SECONDS = 2.0
_DEV_FUSE = os.makedev(10, 229)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cache_worker.holder.mountinfo import Mounted


def read_mounts() -> list[Mounted]:
    """The mounts this process sees."""
    with open(mountinfo.PATH, encoding="utf-8", errors="surrogateescape") as file:
        return mountinfo.parse(file.read())


def source_of(root: str) -> str:
    """What mountinfo shows as the source of our FUSE mounts of the Dataset at `root`."""
    return f"cacheop:{root}"


def check_possible() -> None:
    """UserError that says what is missing for a mount."""
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


def resolve(target: str) -> str:
    """`target` as mountinfo names it. Only the parent is looked at: a dead mount may be there."""
    parent, name = os.path.split(os.path.abspath(target))
    return os.path.join(os.path.realpath(parent), name)


def prepare(target: str, root: str) -> None:
    """Make `target` (resolved) a free directory; a dead mount of cacheop's there is removed first.

    Raises UserError when something else is mounted there, or it holds files. Not to be called for
    what the supervisor may hold: a FUSE mount of this `root` is taken for dead.
    """
    while (found := mountinfo.topmost(read_mounts(), target)) is not None:
        dead = found.kind == FUSE_TYPE and (
            found.source == source_of(root) or not _is_served(target)
        )
        if not dead:
            raise UserError(
                f"cannot mount at {target}: a file system of type {found.kind} is mounted there",
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
    except UserError:
        raise
    except OSError as error:
        raise UserError(
            f"cannot mount at {target}: {error.strerror}", hint="Choose another directory"
        ) from error


def attach(target: str, root: str) -> tuple[int, str]:
    """Mount FUSE at `target`: (fd, device "major:minor"). Raises StoreError."""
    fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={fd},rootmode=40000,user_id=0,group_id=0,allow_other,max_read={READ_MAX_BYTES}"
    flags = syscalls.MS_RDONLY | syscalls.MS_NOSUID | syscalls.MS_NODEV
    try:
        syscalls.mount(source_of(root), target, FUSE_TYPE, flags, options)
        found = mountinfo.topmost(read_mounts(), target)
        if found is None or found.kind != FUSE_TYPE:
            raise OSError(errno.ENOENT, "it was unmounted at once")
    except OSError as error:
        os.close(fd)
        raise StoreError(
            f"cannot mount at {target}: {error.strerror}",
            hint="The process needs CAP_SYS_ADMIN in this container",
        ) from error
    return fd, found.device


def widen_readahead(device: str) -> bool:
    """Let the kernel read 8 MiB ahead (an INIT answer cannot raise its 128 KiB). False if refused.

    Streams then keep several 1 MiB reads in the air. Harmless to lack, only slower.
    """
    try:
        with open(f"/sys/class/bdi/{device}/read_ahead_kb", "w", encoding="ascii") as file:
            file.write(str(READAHEAD_KB))
    except OSError:  # /sys is read-only in many containers
        return False
    return True


def belongs_to(fd: int, device: str) -> bool:
    """Whether `fd` is a FUSE fd, and the one of the mount `device` as far as the kernel tells."""
    if os.fstat(fd).st_rdev != _DEV_FUSE:
        return False
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name == "fuse_connection":  # newer kernels only
                return value.strip() == device.partition(":")[2]
    return True


def detach(target: str) -> None:
    """Unmount `target` lazily; who has files open keeps them until the connection ends."""
    try:
        syscalls.detach(target)
    except OSError as error:
        raise StoreError(f"cannot unmount {target}: {error.strerror}") from error


class Abort:
    """The end of one FUSE connection, taken in hand before the mount is detached.

    A file opened while the connection lives can only ever mean this one: the number in its path may
    be another's a moment after the mount is gone.
    """

    def __init__(self, device: str) -> None:
        self._fd = -1
        try:
            control = syscalls.private_mount("fusectl")
        except OSError:  # a kernel without it: closing the fds must do
            return
        try:
            path = f"{device.partition(':')[2]}/abort"
            self._fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=control)
        except OSError:
            self._fd = -1
        finally:
            os.close(control)

    def finish(self, *, last: bool) -> None:
        """Abort, if that was the `last` mount of it: whoever waits for an answer gets an error."""
        if self._fd < 0:
            return
        try:
            if last:
                os.write(self._fd, b"1")
        except OSError:
            pass  # it ended by itself
        finally:
            os.close(self._fd)
            self._fd = -1


def _is_served(target: str) -> bool:
    """Whether a FUSE mount that is not ours has a server: else it answers ENOTCONN.

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
