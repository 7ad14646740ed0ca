"""How a volume is: its usage, and whether reads of it can be answered. Never touches a mount."""

from __future__ import annotations

import os
import time

from cache_worker.csi import seen as seen_mounts
from cache_worker.csi.refusals import NOT_FOUND, Refusal
from cache_worker.csi.seen import CACHE, FUSE, NATIVE
from cache_worker.holder import mounting, worker_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cache_worker.csi.directories import Directories
    from cache_worker.csi.places import HeldPlace, Places

STATUS_SECONDS = 5.0


class Usage:
    """Of one unit."""

    __slots__ = ("available", "total", "used")

    def __init__(self, total: int, used: int, available: int) -> None:
        self.total = total
        self.used = used
        self.available = available


class Stats:
    """What NodeGetVolumeStats answers."""

    __slots__ = ("bytes", "inodes", "trouble")

    def __init__(self, size: Usage | None, inodes: Usage | None, trouble: str) -> None:
        self.bytes = size
        self.inodes = inodes
        self.trouble = trouble
        """Why reads may not be answered; "" = they are."""


def look(path: str, directories: Directories, places: Places) -> Stats:
    """The volume mounted at `path` (resolved). Raises Refusal, WorkerUnavailable."""
    found = seen_mounts.at(mounting.read_mounts(), path, directories.roots)
    if found is None:
        raise Refusal(NOT_FOUND, f"no volume of ours is mounted at {path}")
    held = next((h for h in places.all() if h.place.path == found.root), None)
    if held is None:
        return Stats(None, None, "the Dataset is no more: delete the pod")
    if found.kind == CACHE:
        return _directory(held)
    trouble = _trouble(held, found.device) if found.kind == FUSE else ""
    try:
        deadline = time.monotonic() + STATUS_SECONDS
        status = worker_line.ask(held.place.fd, {"op": "status"}, deadline)
    except OSError as error:
        if found.kind != NATIVE:  # which needs no worker
            trouble = trouble or f"only cached data can be read: {error}"
        return Stats(None, None, trouble)
    total, files = status.get("bytes_total"), status.get("file_count")
    return Stats(_full(total), _full(files), trouble)


def _full(count: object) -> Usage | None:
    """A read-only volume has room for nothing."""
    return Usage(count, count, 0) if isinstance(count, int) else None


def _directory(held: HeldPlace) -> Stats:
    found = os.statvfs(held.place.fd)
    size, free = found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
    used = (found.f_blocks - found.f_bfree) * found.f_frsize
    inodes = Usage(found.f_files, found.f_files - found.f_ffree, found.f_favail)
    return Stats(Usage(size, used, free), inodes, "")


def _trouble(held: HeldPlace, device: str) -> str:
    mount = next((m for m in held.mounts() if m["device"] == device), None)
    if mount is None:
        return "its FUSE connection has ended: delete the pod"
    if not mount["held"] or not mount["supervisor"]:
        return "the worker is away: uncached data waits for it"
    return ""
