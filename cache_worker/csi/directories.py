"""The Datasets' cache directories on this node: <cache dir>/<namespace>/<name>/<uid>.

Made by root below root's own directories, so nobody else can put a symlink into the way; the last
one is the worker's. It lies in one of the cache dirs: where it is already, else where most is free.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time

from cache_worker.csi.refusals import INTERNAL, Refusal
from cache_worker.csi.wishes import is_label
from cache_worker.holder import syscalls
from cacheop.api.errors import UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

WORKER_UID = 65532
DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_DELETED = ".deleted"  # what no uid ends with
_GENERATION = ".generation"


class Directory:
    """A Dataset's cache directory."""

    __slots__ = ("cache_dir", "name", "namespace", "uid")

    def __init__(self, cache_dir: str, namespace: str, name: str, uid: str) -> None:
        self.cache_dir = cache_dir
        self.namespace = namespace
        self.name = name
        self.uid = uid

    @property
    def path(self) -> str:
        """Where it is."""
        return f"{self.cache_dir}/{self.namespace}/{self.name}/{self.uid}"

    @property
    def key(self) -> tuple[str, str, str]:
        """(namespace, name, uid)."""
        return self.namespace, self.name, self.uid


class Directories:
    """All of them. Any thread may call."""

    def __init__(self, cache_dirs: list[str]) -> None:
        """Raises UserError for one that cannot be used."""
        self.roots: dict[str, int] = {}
        for given in cache_dirs:
            path = os.path.realpath(given)
            try:
                self.roots[path] = os.open(path, DIRECTORY_FLAGS | os.O_CLOEXEC)
            except OSError as error:
                raise UserError(
                    f"cannot use the cache dir {given}: {error.strerror}",
                    hint="node.cacheDirs of the chart names directories of the node",
                ) from error

    def make(self, namespace: str, name: str, uid: str, generation: int) -> Directory:
        """The directory of that Dataset, made if need be. Raises Refusal."""
        found = next((d for d in self.of(namespace, name) if d.uid == uid), None)
        try:
            if found is None:
                found = Directory(self._emptiest(), namespace, name, uid)
                self._make(found, generation)
            return found
        except OSError as error:
            raise Refusal(
                INTERNAL, f"cannot make a cache directory of {namespace}/{name}: {error.strerror}"
            ) from error

    def of(self, namespace: str, name: str) -> list[Directory]:
        """Those of that Dataset, and of others that had its name."""
        return [
            Directory(cache_dir, namespace, name, uid)
            for cache_dir, root in self.roots.items()
            for uid in _labels(root, f"{namespace}/{name}")
        ]

    def all(self) -> list[Directory]:
        """Every one on this node."""
        return [
            Directory(cache_dir, namespace, name, uid)
            for cache_dir, root in self.roots.items()
            for namespace in _labels(root, "")
            for name in _labels(root, namespace)
            for uid in _labels(root, f"{namespace}/{name}")
        ]

    def made(self, directory: Directory) -> tuple[int, float]:
        """(generation of the list of Datasets that was known when it was made, seconds ago)."""
        try:
            with open(f"{directory.path}{_GENERATION}", encoding="ascii") as file:
                age_seconds = time.time() - os.fstat(file.fileno()).st_mtime
                return int(file.read()), age_seconds
        except (OSError, ValueError):
            return 0, 0.0

    def remove(self, directory: Directory) -> None:
        """Delete it with all it holds; what a crash left of that goes with the next sweep."""
        doomed = f"{directory.path}{_DELETED}"
        os.rename(directory.path, doomed)
        shutil.rmtree(doomed)  # follows no symlink
        with contextlib.suppress(OSError):
            os.unlink(f"{directory.path}{_GENERATION}")
        for parent in (
            os.path.dirname(directory.path),
            f"{directory.cache_dir}/{directory.namespace}",
        ):
            with contextlib.suppress(OSError):  # another Dataset's is in it
                os.rmdir(parent)

    def sweep(self) -> None:
        """Finish removing what a predecessor began to remove."""
        for cache_dir, root in self.roots.items():
            for namespace in _labels(root, ""):
                for name in _labels(root, namespace):
                    parent = f"{cache_dir}/{namespace}/{name}"
                    for entry in os.listdir(parent):
                        if entry.endswith(_DELETED):
                            shutil.rmtree(f"{parent}/{entry}", ignore_errors=True)

    def _emptiest(self) -> str:
        def free(cache_dir: str) -> int:
            found = os.statvfs(self.roots[cache_dir])
            return found.f_bavail * found.f_frsize

        return max(self.roots, key=free)

    def _make(self, directory: Directory, generation: int) -> None:
        root = self.roots[directory.cache_dir]
        above = root
        try:
            for part in (directory.namespace, directory.name):
                below = _enter(above, part, 0o755)
                if above != root:
                    os.close(above)
                above = below
            _write(above, f"{directory.uid}{_GENERATION}", str(generation))
            os.close(_enter(above, directory.uid, 0o700, WORKER_UID))
        finally:
            if above != root:
                os.close(above)


def _enter(above: int, name: str, mode: int, owner: int = 0) -> int:
    """The directory `name`, made if need be; what is there already must be its owner's."""
    try:
        os.mkdir(name, mode, dir_fd=above)
        is_new = True
    except FileExistsError:
        is_new = False
    fd = syscalls.openat2(above, name, DIRECTORY_FLAGS)
    if is_new:
        os.fchmod(fd, mode)
        os.fchown(fd, owner, owner)
    elif os.fstat(fd).st_uid != owner:
        os.close(fd)
        raise PermissionError(errno.EPERM, f"{name} is there and belongs to somebody else")
    return fd


def _write(directory: int, name: str, text: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(name, flags, 0o644, dir_fd=directory)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _labels(root: int, below: str) -> Iterator[str]:
    """The directories in `below` that may be ours."""
    try:
        fd = syscalls.openat2(root, below or ".", DIRECTORY_FLAGS)
    except OSError:
        return
    try:
        with os.scandir(fd) as entries:
            found = [e.name for e in entries if e.is_dir(follow_symlinks=False)]
    finally:
        os.close(fd)
    yield from sorted(name for name in found if is_label(name))
