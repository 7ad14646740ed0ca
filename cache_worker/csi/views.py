"""The view for `access: client`: what the fsspec client needs of a Dataset's directory, read-only.

A small tmpfs with the client's socket, manifests, chunk table and data bound into it: worker.sock,
which may do everything, is not there, and a new one of the worker does not appear either.
"""

from __future__ import annotations

import os
import stat

from cache_worker.csi.seen import VIEW_SOURCE
from cache_worker.holder import mounting, native, syscalls
from cacheop.api import names
from cacheop.api.errors import StoreError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cache_worker.holder.publishing import Place

DIRECTORIES = (os.path.dirname(names.CLIENT_SOCKET), names.MANIFEST_DIR, names.DATA_DIR)
FILES = (names.CHUNK_TABLE,)


def show(place: Place, target: str) -> None:
    """Make the view at `target`, a free directory. Raises StoreError.

    It becomes read-only last, which tells a whole one from one that a crash left.
    """
    try:
        flags = syscalls.MS_NOSUID | syscalls.MS_NODEV
        options = "mode=0755,size=64k,nr_inodes=32"
        syscalls.mount(f"{VIEW_SOURCE}{place.path}", target, "tmpfs", flags, options)
        for name in DIRECTORIES:
            os.mkdir(f"{target}/{name}", 0o755)
            _bind(place, name, f"{target}/{name}", stat.S_IFDIR)
        for name in FILES:
            os.close(os.open(f"{target}/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
            _bind(place, name, f"{target}/{name}", stat.S_IFREG)
        syscalls.rebind_read_only(target)
    except OSError as error:
        mounting.detach(target)
        raise StoreError(f"cannot make the client's view: {error.strerror or error}") from error


def _bind(place: Place, name: str, target: str, kind: int) -> None:
    fd = syscalls.openat2(place.fd, name, os.O_PATH | os.O_NOFOLLOW)
    try:
        found = os.fstat(fd)
        if stat.S_IFMT(found.st_mode) != kind or found.st_uid != place.owner:
            raise OSError(0, f"{name} is not what the worker makes")
        native.bind(fd, target)
    finally:
        os.close(fd)
