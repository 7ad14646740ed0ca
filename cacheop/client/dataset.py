"""One version of one Dataset, read through a worker: from its files where they lie here and are
whole, else by asking it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from typing import TYPE_CHECKING, Any

from cacheop.api.chunk import CHUNK_BYTES
from cacheop.api.errors import CacheopError, ProtocolError, StoreError, WorkerUnavailable
from cacheop.client.file import CompleteFile, SpanFile

if TYPE_CHECKING:
    import builtins
    import io
    from collections.abc import Sequence

    from cacheop.api import wire
    from cacheop.client.link import Ahead, WorkerLink
    from cacheop.client.origin import UnchangedOrigin
    from cacheop.client.store import LocalStore
    from cacheop.client.tree import Info, Tree

ATTEMPTS = 4
"""How often a chunk may be dropped between the worker's answer and our read before we ask for the
bytes themselves."""
CHUNKS_AT_A_TIME = 8
"""Of a long read. Few enough that the cache need not drop the first to make room for the last."""

Span = tuple[str, int | None, int | None]


class CachedDataset:
    """`store` is None where the worker is on another machine: then all bytes come over the link.

    `origin`, if given, is read where no worker answers.
    """

    def __init__(
        self,
        tree: Tree,
        link: WorkerLink,
        store: LocalStore | None,
        origin: UnchangedOrigin | None = None,
    ) -> None:
        self._origin = origin
        self.tree = tree
        self.link = link
        self.store = store
        self.waits = False  # metadata never waits: the index is mapped

    def read(self, path: str, start: int | None, end: int | None) -> bytes:
        """Bytes [start, end) of a file, as a slice would give them; waits if it must."""
        row, path = self.tree.file(path)
        offset, length = span_of(self.tree.index.size(row), start, end)
        if self.store is not None:
            data = self.store.read(row, path, offset, length)
            if data is not None:
                self.link.touch(row)
                return data
        return self.fetch(row, path, offset, length)

    def try_read(self, path: str, start: int | None, end: int | None) -> bytes | None:
        """As `read`, but None when that would mean to wait."""
        row, path = self.tree.file(path)
        offset, length = span_of(self.tree.index.size(row), start, end)
        if self.store is None:
            return None if length else b""
        data = self.store.read(row, path, offset, length)
        if data is not None:
            self.link.touch(row)
        return data

    def read_many(self, spans: Sequence[Span]) -> builtins.list[bytes | OSError]:
        """As `read` for each; what has to wait waits together. Errors are in the result."""
        results: builtins.list[bytes | OSError | None] = []
        asks: builtins.list[tuple[int, int, str, int, int]] = []
        for number, (path, start, end) in enumerate(spans):
            try:
                results.append(self.try_read(path, start, end))
                if results[-1] is None:
                    row, real = self.tree.file(path)
                    offset, length = span_of(self.tree.index.size(row), start, end)
                    asks.append((number, row, real, offset, length))
            except OSError as error:
                results.append(error)
        # Long ones would hold the line; `fetch` cuts them into pieces.
        short = [ask for ask in asks if ask[4] <= CHUNK_BYTES]
        frames = self.link.read_many([self._ask(a[1], a[3], a[4]) for a in short])
        answers = {ask[0]: frame for ask, frame in zip(short, frames, strict=True)}
        for number, row, real, offset, length in asks:
            try:
                answer = answers.pop(number, None)
                results[number] = self._taken(answer, row, real, offset, length)
            except OSError as error:
                results[number] = error
        return [r for r in results if r is not None]

    def fetch(self, row: int, path: str, offset: int, length: int) -> bytes:
        """Those bytes of a file by asking the worker, several chunks at a time."""
        if length <= CHUNK_BYTES:
            return self._fetch_piece(row, path, offset, length)
        end = offset + length
        # At chunk boundaries, so that no chunk is asked for twice.
        cuts = [offset, *range((offset // CHUNK_BYTES + 1) * CHUNK_BYTES, end, CHUNK_BYTES), end]
        spans = [(a, b - a) for a, b in itertools.pairwise(cuts)]
        pieces: builtins.list[bytes] = []
        for first in range(0, len(spans), CHUNKS_AT_A_TIME):
            group = spans[first : first + CHUNKS_AT_A_TIME]
            frames = self.link.read_many([self._ask(row, at, n) for at, n in group])
            pieces += [
                self._taken(frame, row, path, at, n)
                for frame, (at, n) in zip(frames, group, strict=True)
            ]
        return b"".join(pieces)

    def read_ahead(self, row: int, offset: int, length: int) -> Ahead | None:
        """Ask for a span now and take it later; None if the worker is not at hand."""
        return self.link.read_ahead(self._ask(row, offset, length))

    def open(self, path: str) -> io.BufferedReader:
        """A file object; with a true fileno() if the file is whole here or is one chunk."""
        row, path = self.tree.file(path)
        size = self.tree.index.size(row)
        fd = self.store.open_complete(row, path) if self.store is not None else None
        if fd is not None:
            self.link.touch(row)
        elif size <= CHUNK_BYTES:
            fd = self._open_small(row, path, size)
        if fd is not None:
            return CompleteFile(fd, path, size)
        return SpanFile(self, row, path).buffered()

    def find(
        self, path: str, base: str, *, maxdepth: int | None, withdirs: bool, detail: bool
    ) -> builtins.list[str] | dict[str, Info]:
        """Fsspec's `find`."""
        tree = self.tree
        found = tree.find(path, base, maxdepth=maxdepth, withdirs=withdirs)
        if not detail:
            return sorted(name for _, name in found)
        rows = sorted((name, row) for row, name in found)
        return {name: tree.info_of(row, name) for name, row in rows}

    def info(self, path: str, base: str) -> Info:
        """Fsspec's `info`. Raises NotFoundError."""
        return self.tree.info(path, base)

    def list(self, path: str, base: str) -> builtins.list[Info]:
        """Fsspec's `ls` with details. Raises NotFoundError."""
        return self.tree.list(path, base)

    def list_names(self, path: str, base: str) -> builtins.list[str]:
        """Fsspec's `ls` without details. Raises NotFoundError."""
        return self.tree.list_names(path, base)

    def content(self, path: str) -> str:
        """What names the content of a file."""
        return self.tree.content(path)

    def rebind(self) -> None:
        """In a forked child: bind the same version, on connections of its own.

        What the parent mapped stays good, so without a worker only misses fail.
        """
        with contextlib.suppress(WorkerUnavailable):
            self.link.open(0)

    def after_fork(self) -> None:
        """In the child, before anything else runs."""
        if self._origin is not None:
            self._origin.after_fork()
        self.link.after_fork()

    def close(self) -> None:
        """Tell what is left to tell and hang up. Open files go on."""
        self.link.tell_touched()
        self.link.close()

    def _open_small(self, row: int, path: str, size: int) -> int:
        """An fd of a file of one chunk: the store's own once it is filled, else of a copy."""
        if self.store is not None and size:
            fd = self._open_filled(row, path, size)
            if fd is not None:
                return fd
        data = self.fetch(row, path, 0, size) if size else b""
        fd = os.memfd_create("cacheop", os.MFD_CLOEXEC)
        os.write(fd, data)
        os.lseek(fd, 0, os.SEEK_SET)
        return fd

    def _open_filled(self, row: int, path: str, size: int) -> int | None:
        try:
            frame = self.link.read(self._ask(row, 0, size))
        except WorkerUnavailable:
            if self._origin is None:
                raise
            return None
        if not frame.meta.get("present") or self.store is None:
            return None
        return self.store.open_complete(row, path)

    def _ask(self, row: int, offset: int, length: int) -> dict[str, Any]:
        ask: dict[str, Any] = {"row": row, "offset": offset, "length": length}
        if self.store is None:
            ask["inline"] = True
        return ask

    def _taken(
        self,
        answer: wire.Frame | CacheopError | None,
        row: int,
        path: str,
        offset: int,
        length: int,
    ) -> bytes:
        if isinstance(answer, WorkerUnavailable) and self._origin is not None:
            return self._origin.read(row, path, offset, length, answer)
        if isinstance(answer, CacheopError):
            raise answer
        if answer is not None:
            data = self.bytes_of(answer, row, path, offset, length)
            if data is not None:
                return data
        return self.fetch(row, path, offset, length)

    def _fetch_piece(self, row: int, path: str, offset: int, length: int) -> bytes:
        try:
            return self._asked_piece(row, path, offset, length)
        except WorkerUnavailable as error:
            if self._origin is None:
                raise
            return self._origin.read(row, path, offset, length, error)

    def _asked_piece(self, row: int, path: str, offset: int, length: int) -> bytes:
        if length <= 0:
            return b""
        ask = self._ask(row, offset, length)
        for _ in range(ATTEMPTS):
            data = self.bytes_of(self.link.read(ask), row, path, offset, length)
            if data is not None:
                return data
        data = self.bytes_of(self.link.read({**ask, "inline": True}), row, path, offset, length)
        if data is None:
            raise StoreError(
                f"'{path}': the worker has the bytes at {offset}, but they cannot be read here",
                hint="Check that this user may read the cache directory",
            )
        return data

    def bytes_of(
        self, frame: wire.Frame, row: int, path: str, offset: int, length: int
    ) -> bytes | None:
        """What an answer to `read` gives: its payload, or what it says is in the store now.

        None if it has gone from there again. Raises ProtocolError for anything but whole bytes.
        """
        if not frame.meta.get("present") or frame.payload:
            if len(frame.payload) != length:
                raise ProtocolError(
                    f"'{path}': {len(frame.payload)} bytes at {offset} instead of {length}"
                )
            return bytes(frame.payload)
        if self.store is None:
            raise ProtocolError(f"'{path}': the worker sent no bytes", hint="Update the worker")
        return self.store.read(row, path, offset, length)


def span_of(size: int, start: int | None, end: int | None) -> tuple[int, int]:
    """(offset, length) of the slice [start:end] of `size` bytes."""
    if start is None and end is None:
        return 0, size
    first, last, _ = slice(start, end).indices(size)
    return first, max(0, last - first)
