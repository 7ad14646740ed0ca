"""The fds of one mount, as the holder keeps them and passes them on.

FUSE modes: [fuse, ring, ids]; Native: [lock]. What comes back from the supervisor is looked at
before it is believed: it runs as the cache's user.
"""

from __future__ import annotations

import fcntl
import os

from cache_worker.holder import mounting, native
from cache_worker.holder.backing import RING_BYTES, SEALS, BackingIds, ids_bytes
from cacheop.api import mount_modes
from cacheop.api.errors import ProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cache_worker.holder.records import Mount

_SEALED = SEALS | fcntl.F_SEAL_SEAL


class Kept:
    """Open fds; the owner closes them."""

    __slots__ = ("fds", "ids")

    def __init__(self, fds: list[int], ids: BackingIds | None) -> None:
        self.fds = fds
        """In the order in which they are sent."""
        self.ids = ids
        """None in mode Native."""

    def close(self) -> None:
        """Let go of all of it; what others have stays theirs."""
        if self.ids is not None:
            self.ids.close()
        for fd in self.fds:
            os.close(fd)
        self.fds = []


def make_fuse(fuse: int, rows: int, name: str) -> Kept:
    """Ring and table of ids for a new FUSE fd, which becomes ours. Raises OSError."""
    fds = [fuse]
    try:
        fds.append(_memory(f"cacheop-ring-{name}", RING_BYTES, 0o600))
        ids = _memory(f"cacheop-ids-{name}", ids_bytes(rows), 0o444)
        fds.append(os.open(f"/proc/self/fd/{ids}", os.O_RDONLY | os.O_CLOEXEC))
        os.close(ids)
        return Kept(fds, BackingIds(fuse, fds[2], rows))
    except OSError:
        for fd in fds[1:]:
            os.close(fd)
        raise


def take(mount: Mount, fds: list[int], root: int, name: str) -> Kept:
    """What the supervisor gives back for `mount`; the fds become ours. Raises ProtocolError.

    Then the fds are the caller's still.
    """
    try:
        if mount.mode == mount_modes.NATIVE:
            if len(fds) != 1 or not native.is_lock(fds[0], root, mount.version):
                raise ProtocolError(f"mount {mount.id}: no lock on its version")
            return Kept(fds, None)
        if len(fds) != 3 or not mounting.belongs_to(fds[0], mount.device):
            raise ProtocolError(f"mount {mount.id}: not its FUSE fd")
        if not _is_memory(fds[1], f"cacheop-ring-{name}", RING_BYTES):
            raise ProtocolError(f"mount {mount.id}: not its ring")
        if not _is_memory(fds[2], f"cacheop-ids-{name}", ids_bytes(mount.rows)):
            raise ProtocolError(f"mount {mount.id}: not its table of backing ids")
        return Kept(fds, BackingIds(fds[0], fds[2], mount.rows))
    except OSError as error:
        if isinstance(error, ProtocolError):
            raise
        raise ProtocolError(f"mount {mount.id}: {error}") from error


def _memory(name: str, size_bytes: int, mode: int) -> int:
    """Shared memory of a fixed size and root's: a read-only fd of it cannot be made to write."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.fchmod(fd, mode)
        os.ftruncate(fd, size_bytes)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALED)
    except OSError:
        os.close(fd)
        raise
    return fd


def _is_memory(fd: int, name: str, size_bytes: int) -> bool:
    """Whether `fd` is what `_memory` made under that name: only the holder's user can have."""
    found = os.fstat(fd)
    return (
        os.readlink(f"/proc/self/fd/{fd}") == f"/memfd:{name} (deleted)"
        and found.st_uid == os.geteuid()
        and found.st_size == size_bytes
        and fcntl.fcntl(fd, fcntl.F_GET_SEALS) == _SEALED
    )
