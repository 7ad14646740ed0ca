"""The tree of one version, looked at from its index: paths to rows, rows to fsspec's dicts.

No round trips: everything here is arithmetic on a mapped file.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

from cacheop.api.errors import NotFoundError
from cacheop.api.index import DIRECTORY, ROOT

if TYPE_CHECKING:
    import builtins
    from collections.abc import Iterator

    from cacheop.api.index import Index

DIRECTORIES_KEPT = 4096
"""How many parent paths keep their row; training reads many files of few directories."""

Info = dict[str, Any]


class Tree:
    """`base` is what a result's name begins with: the URL's `dataset[.namespace][@version]`."""

    def __init__(self, index: Index) -> None:
        self.index = index
        # path of a directory as asked -> (row, its path as it is, with a slash at the end)
        self._directories: dict[str, tuple[int, str]] = {"": (ROOT, "")}

    def file(self, path: str) -> tuple[int, str]:
        """(row, real path) of a file. Raises NotFoundError or IsADirectoryError."""
        parent, _, name = path.rpartition("/")
        found = self._directories.get(parent) or self._directory(parent, path)
        row = self.index.lookup(found[0], name.encode("utf-8", "surrogateescape"))
        if row is None:
            row = self.row(path)  # an odd spelling, such as a//b, or not there
        if row == ROOT or self.index.is_directory(row):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        return row, found[1] + name

    def row(self, path: str) -> int:
        """The row of a file or directory, ROOT for the top. Raises NotFoundError."""
        row = self.index.resolve(path)
        if row is None:
            raise NotFoundError(
                f"'{path}' is not in version {self.index.version} of the Dataset",
                hint="`cacheop refresh` lists the origin again",
            )
        return row

    def info(self, path: str, base: str) -> Info:
        """Fsspec's `info`. Raises NotFoundError."""
        row = self.row(path)
        if row == ROOT:
            return {"name": base, "size": 0, "type": "directory"}
        return self._info(row, f"{base}/{self.index.path(row)}")

    def list(self, path: str, base: str) -> builtins.list[Info]:
        """Fsspec's `ls` with details; a file lists itself. Raises NotFoundError."""
        row = self.row(path)
        if not self.index.is_directory(row):
            return [self._info(row, f"{base}/{self.index.path(row)}")]
        prefix = f"{base}/{self.index.path(row)}".rstrip("/")
        rows = self.index.children(row)
        names, _ = self.index.entries(rows)
        return [
            self._info(child, f"{prefix}/{_text(name)}")
            for child, name in zip(rows, names, strict=True)
        ]

    def list_names(self, path: str, base: str) -> builtins.list[str]:
        """Fsspec's `ls` without details. Raises NotFoundError."""
        row = self.row(path)
        real = f"{base}/{self.index.path(row)}".rstrip("/")
        if not self.index.is_directory(row):
            return [real]
        names, _ = self.index.entries(self.index.children(row))
        return [f"{real}/{_text(name)}" for name in names]

    def find(
        self, path: str, base: str, *, maxdepth: int | None = None, withdirs: bool = False
    ) -> Iterator[tuple[int, str]]:
        """(row, name) of the files below `path` (a file: itself), in no order.

        `withdirs` gives directories too, `path` itself among them. Nothing for what is not there.
        """
        row = self.index.resolve(path)
        if row is None:
            return
        real = base if row == ROOT else f"{base}/{self.index.path(row)}"
        if not self.index.is_directory(row):
            yield row, real
            return
        if withdirs:
            yield row, real
        todo = [(row, real, 1)]
        while todo:
            row, prefix, depth = todo.pop()
            rows = self.index.children(row)
            names, kinds = self.index.entries(rows)
            for child, name, kind in zip(rows, names, kinds, strict=True):
                full = f"{prefix}/{_text(name)}"
                if kind == DIRECTORY:
                    if maxdepth is None or depth < maxdepth:
                        todo.append((child, full, depth + 1))
                    if not withdirs:
                        continue
                yield child, full

    def info_of(self, row: int, name: str) -> Info:
        """Fsspec's `info` of a row whose name is known already."""
        if row == ROOT:
            return {"name": name, "size": 0, "type": "directory"}
        return self._info(row, name)

    def content(self, path: str) -> str:
        """What names the content of a file, 32 hex digits; of a directory: version and path."""
        row = self.row(path)
        if self.index.is_directory(row):
            return f"{self.index.version}/{path}"
        return self.index.content(row).hex()

    def _info(self, row: int, name: str) -> Info:
        index = self.index
        seconds = index.mtime_ns(row) / 1e9
        if index.is_directory(row):
            return {"name": name, "size": 0, "type": "directory", "mtime": seconds}
        info = {
            "name": name,
            "size": index.size(row),
            "type": "file",
            "mtime": seconds,
            "created": seconds,
        }
        # Left out when unknown: callers take a key that is there for a fingerprint.
        if etag := index.etag(row):
            info["ETag"] = etag
        if version := index.origin_version(row):
            info["VersionId"] = version
        return info

    def _directory(self, parent: str, path: str) -> tuple[int, str]:
        row = self.index.resolve(parent)
        if row is None or not self.index.is_directory(row):
            row = self.row(path)  # raises with the path that was asked for
        real = self.index.path(row)
        found = (row, f"{real}/" if real else "")
        if len(self._directories) >= DIRECTORIES_KEPT:
            self._directories = {"": (ROOT, "")}
        self._directories[parent] = found
        return found


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
