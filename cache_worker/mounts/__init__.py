"""How training sees a Dataset as files. One protocol, one module per way of serving it.

kernel.py, tree.py and readahead.py are pure (bytes of the FUSE protocol, the index as inodes, what
to ask for early), stored.py reads the shared store, line.py asks the worker, fuse.py answers the
kernel, server.py is the process, and attach.py makes and removes mounts. This file imports next to
nothing, so that the supervisor stays small.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from cache_worker.mounts.line import Read


class Mount(Protocol):
    """One way of serving one version at one target: what `spec.mount.mode` names."""

    def serve(self) -> None:
        """Answer the kernel on the calling thread until the mount ends."""
        ...

    def answered(self, read: Read, payload: bytes | None, errno_code: int) -> None:
        """Take the worker's answer to `read`, on the line's thread.

        errno_code 0 and no payload: the store holds the bytes now.
        """
        ...
