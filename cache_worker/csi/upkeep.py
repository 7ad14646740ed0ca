"""What the node plugin does by itself: directories of Datasets that are gone, the node's budget."""

from __future__ import annotations

import contextlib
import json
import os

from cache_worker.csi import budget
from cache_worker.csi import seen as seen_mounts
from cache_worker.holder import mounting
from cacheop.api import names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cache_worker.csi.directories import Directories, Directory
    from cache_worker.csi.places import HeldPlace, Places

GRACE_SECONDS = 120.0
"""A directory younger than that stays: the list that we see may be older than it is, by what the
kubelet takes to project one (60 to 90 s)."""
LISTS_MAX_BYTES = 8 << 20


class Upkeep:
    """Run by one thread; `generation` may be read by any."""

    SECONDS = 5.0

    def __init__(
        self,
        directories: Directories,
        places: Places,
        lists: str,
        log: Callable[[str], None],
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        self.generation = 0
        """Of the last whole list of Datasets that was seen."""
        self._directories, self._places = directories, places
        self._lists = lists
        """File, or directory of files, that the operator's ConfigMap is."""
        self._log = log
        self._grace_seconds = grace_seconds
        self._directories.sweep()

    def run(self) -> None:
        """Once; errors are logged."""
        try:
            self._remove_gone()
            self._share_out()
        except OSError as error:
            self._log(f"upkeep: {error}")

    def _remove_gone(self) -> None:
        listed = read_lists(self._lists)
        if listed is None:
            return
        self.generation, uids = listed
        for directory in self._directories.all():
            known, age_seconds = self._directories.made(directory)
            if directory.uid in uids or known >= self.generation:
                continue
            if age_seconds < self._grace_seconds or self._is_mounted(directory):
                continue
            held = self._places.hold(directory)
            self._places.forget(held)
            self._log(f"the Dataset of {directory.path} is gone: removed")
            self._directories.remove(directory)

    def _is_mounted(self, directory: Directory) -> bool:
        mounts = mounting.read_mounts()
        return bool(seen_mounts.below(mounts, directory.path, self._directories.roots))

    def _share_out(self) -> None:
        """Tell the workers how much they may keep where their Dataset does not say."""
        held = self._places.all()
        for cache_dir, fd in self._directories.roots.items():
            here = [h for h in held if h.directory.cache_dir == cache_dir]
            found = os.statvfs(fd)
            share = budget.share_bytes(found.f_blocks * found.f_frsize, len(here))
            for one in here:
                if one.share_bytes != share:
                    write_budget(one, share)
                    one.share_bytes = share


def read_lists(path: str) -> tuple[int, frozenset[str]] | None:
    """(generation, uids) of the Datasets there are; None: not known, or not of one generation."""
    if not path:
        return None
    try:
        files = [path]
        if os.path.isdir(path):
            files = [f"{path}/{name}" for name in sorted(os.listdir(path)) if name[:1] != "."]
        texts = []
        for file in files:
            with open(file, "rb") as opened:
                texts.append(json.loads(opened.read(LISTS_MAX_BYTES)))
    except (OSError, ValueError):
        return None
    return budget.joined(texts)


def write_budget(held: HeldPlace, quota_bytes: int) -> None:
    """Into the worker's directory, which is its to spoil: no symlink of it is followed."""
    root, new = held.place.fd, f".{names.BUDGET_FILE}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new, dir_fd=root)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(new, flags, 0o644, dir_fd=root)
    try:
        os.write(fd, json.dumps({"quota_bytes": quota_bytes}).encode())
    finally:
        os.close(fd)
    os.replace(new, names.BUDGET_FILE, src_dir_fd=root, dst_dir_fd=root)
