"""Rows to the paths of their files in the store. Pure.

An open of a small file is a good part of reading it, and joining its path a good part of the open:
the latest directories are remembered.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cacheop.api.index import ROOT

if TYPE_CHECKING:
    from cacheop.api.index import Index

DIRECTORIES_MAX = 1024


class Paths:
    """Where the files of `index` lie below `base`, which ends with a slash. Any thread may ask."""

    def __init__(self, index: Index, base: bytes, remembered: int = DIRECTORIES_MAX) -> None:
        self._index = index
        self._base = base
        self._remembered = remembered
        self._directories: dict[int, bytes] = {}

    def path(self, row: int) -> bytes:
        """The path of the file at `row`."""
        parent = self._index.parent(row)
        directory = self._directories.get(parent)
        if directory is None:
            below = b"" if parent == ROOT else os.fsencode(self._index.path(parent)) + b"/"
            directory = self._base + below
            if len(self._directories) >= self._remembered:
                self._directories.clear()
            self._directories[parent] = directory
        return directory + self._index.name(row)
