"""What is mounted at a pod's target path, as far as it is ours. Pure, over mountinfo.

Nothing else is asked or remembered: after a crash what is mounted is what was published.
"""

from __future__ import annotations

from cache_worker.holder import mountinfo
from cache_worker.holder.mounting import FUSE_TYPE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cache_worker.holder.mountinfo import Mounted

CACHE, NATIVE, FUSE, VIEW = "cache directory", "Native mount", "FUSE mount", "client view"
VIEW_SOURCE = "cacheop-client:"
_FUSE_SOURCE = "cacheop:"
_ROOT_PARTS = 3  # <namespace>/<name>/<uid>
_DELETED = "//deleted"


class Seen:
    """A mount of ours."""

    __slots__ = ("device", "is_read_only", "kind", "root", "target")

    def __init__(self, kind: str, root: str, mounted: Mounted) -> None:
        self.kind = kind
        self.root = root
        """Cache directory of the Dataset that it shows."""
        self.target = mounted.target
        self.device = mounted.device
        self.is_read_only = "ro" in mounted.options


def identify(mounts: list[Mounted], mounted: Mounted, cache_dirs: Iterable[str]) -> Seen | None:
    """What `mounted` is; None: not ours."""
    if mounted.kind == FUSE_TYPE and mounted.source.startswith(_FUSE_SOURCE):
        return Seen(FUSE, mounted.source.removeprefix(_FUSE_SOURCE), mounted)
    if mounted.source.startswith(VIEW_SOURCE):
        return Seen(VIEW, mounted.source.removeprefix(VIEW_SOURCE), mounted)
    for cache_dir in cache_dirs:
        store = mountinfo.holding(mounts, cache_dir)
        if store is None or store[0].device != mounted.device:
            continue
        above = store[1].rstrip("/") + "/"
        if not mounted.inner.startswith(above):
            continue
        parts = mounted.inner.removeprefix(above).removesuffix(_DELETED).split("/")
        root = "/".join((cache_dir, *parts[:_ROOT_PARTS]))
        if len(parts) == _ROOT_PARTS:
            return Seen(CACHE, root, mounted)
        if len(parts) > _ROOT_PARTS:
            return Seen(NATIVE, root, mounted)
    return None


def at(mounts: list[Mounted], target: str, cache_dirs: Iterable[str]) -> Seen | None:
    """What of ours is seen at `target`; None: nothing, or not ours (see `mountinfo.topmost`)."""
    top = mountinfo.topmost(mounts, target)
    return None if top is None else identify(mounts, top, cache_dirs)


def below(mounts: list[Mounted], root: str, cache_dirs: Iterable[str]) -> list[Seen]:
    """Every mount that shows something of the Dataset at `root`."""
    found = (identify(mounts, mounted, cache_dirs) for mounted in mounts)
    return [seen for seen in found if seen is not None and seen.root == root]
