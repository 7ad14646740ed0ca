"""File objects: a real one where the file is whole on this machine, else one that asks."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

from cacheop.api.chunk import CHUNK_BYTES, chunk_span
from cacheop.api.errors import CacheopError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any, Self

    from typing_extensions import Buffer

    from cacheop.client.dataset import CachedDataset
    from cacheop.client.link import Ahead

BUFFER_BYTES = 128 << 10
COPY_BYTES = 8 << 20


class CompleteFile(io.BufferedReader):
    """A plain local file: fileno() is true, so mmap and sendfile work. Owns its fd."""

    def __init__(self, fd: int, path: str, size: int) -> None:
        super().__init__(io.FileIO(fd, "rb"), BUFFER_BYTES)
        self.path = path
        self.size = size

    @property
    def full_name(self) -> str:
        """What fsspec calls the path."""
        return self.path


class BufferedSpans(io.BufferedReader):
    """The buffered form of a SpanFile, with the attributes that fsspec's files have."""

    def __init__(self, raw: SpanFile) -> None:
        super().__init__(raw, BUFFER_BYTES)
        self.path = raw.path
        self.size = raw.size

    @property
    def full_name(self) -> str:
        """What fsspec calls the path."""
        return self.path


class SpanFile(io.RawIOBase):
    """A file of several chunks that is not whole here. One thread at a time, as any raw file.

    While chunk k is read in order, chunk k+1 is asked for. Once the file is complete its own fd is
    used, and is what fileno() gives; before that there is none, as it would show holes.
    """

    def __init__(self, dataset: CachedDataset, row: int, path: str) -> None:
        super().__init__()
        self.path = path
        self.size: int = dataset.tree.index.size(row)
        self._dataset = dataset
        self._row = row
        self._at = 0
        self._complete: int | None = None  # owned fd, once the file is complete
        self._piece: tuple[int, bytes] = (0, b"")  # (offset, bytes) that came as payload
        self._next_expected = 0
        self._ahead: tuple[int, Ahead] | None = None  # (chunk, request under way); owned

    def buffered(self) -> BufferedSpans:
        """What `open` gives to users."""
        return BufferedSpans(self)

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Where the next read begins."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise ValueError("negative seek position")
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        """The position."""
        return self._at

    def fileno(self) -> int:
        """The fd of the complete file. Raises io.UnsupportedOperation while it is not complete."""
        fd = self._native()
        if fd is None:
            raise io.UnsupportedOperation(
                f"'{self.path}' is not complete in the cache yet, so it has no file descriptor"
            )
        return fd

    def readinto(self, buffer: Buffer, /) -> int:
        """Fill `buffer` as far as one chunk goes; 0 at the end."""
        view = memoryview(buffer).cast("B")
        wanted = min(len(view), self.size - self._at)
        if wanted <= 0:
            return 0
        fd = self._native()
        if fd is not None:
            done = os.preadv(fd, [view[:wanted]], self._at)
            if done == 0:
                raise CacheopError(f"'{self.path}' ends at {self._at} instead of {self.size}")
        else:
            data = self._span(self._at, wanted)
            done = len(data)
            view[:done] = data
        self._at += done
        self._next_expected = self._at
        return done

    def readall(self) -> bytes:
        """All from the position to the end."""
        rest = self._dataset.read(self.path, min(self._at, self.size), None)
        self._at += len(rest)
        return rest

    def close(self) -> None:
        """Give the fd and the request under way back."""
        if not self.closed:
            self._drop_ahead()
            if self._complete is not None:
                os.close(self._complete)
                self._complete = None
        super().close()

    def _native(self) -> int | None:
        if self._complete is None and self._dataset.store is not None:
            store = self._dataset.store
            if store.is_complete(self._row):
                self._complete = store.open_complete(self._row, self.path)
                self._piece = (0, b"")
                self._drop_ahead()
        return self._complete

    def _span(self, offset: int, wanted: int) -> memoryview | bytes:
        """At least one of `wanted` bytes at `offset`, all of one chunk."""
        start, data = self._piece
        if start <= offset < start + len(data):
            return memoryview(data)[offset - start : offset - start + wanted]
        chunk = offset // CHUNK_BYTES
        begin, length = chunk_span(self.size, chunk)
        wanted = min(wanted, begin + length - offset)
        in_order = offset in (self._next_expected, begin)
        whole = self._waited(chunk)
        if whole is None:
            found = self._stored(offset, wanted)
            if found is not None:
                if in_order:
                    self._ask_ahead(chunk + 1)
                return found
            if not in_order:  # here and there: no more than asked
                return self._dataset.fetch(self._row, self.path, offset, wanted)
            begin, length = offset, begin + length - offset
            whole = self._dataset.fetch(self._row, self.path, begin, length)
        self._ask_ahead(chunk + 1)
        self._piece = (begin, whole)
        return memoryview(whole)[offset - begin : offset - begin + wanted]

    def _stored(self, offset: int, wanted: int) -> bytes | None:
        store = self._dataset.store
        return store.read(self._row, self.path, offset, wanted) if store is not None else None

    def _waited(self, chunk: int) -> bytes | None:
        """The bytes of `chunk` if that is what was asked for ahead."""
        if self._ahead is None or self._ahead[0] != chunk:
            return None
        ahead = self._ahead[1]
        begin, length = chunk_span(self.size, chunk)
        try:
            frame = ahead.wait()
            return self._dataset.bytes_of(frame, self._row, self.path, begin, length)
        except (CacheopError, ConnectionError, TimeoutError):
            return None  # asked again by `fetch`, which says what is wrong if it still is
        finally:
            self._drop_ahead()

    def _ask_ahead(self, chunk: int) -> None:
        if self._ahead is not None and self._ahead[0] != chunk:
            self._drop_ahead()
        if self._ahead is not None or chunk * CHUNK_BYTES >= self.size:
            return
        store = self._dataset.store
        if store is not None and store.is_present(self._row, chunk):
            return
        begin, length = chunk_span(self.size, chunk)
        ahead = self._dataset.read_ahead(self._row, begin, length)
        if ahead is not None:
            self._ahead = (chunk, ahead)

    def _drop_ahead(self) -> None:
        if self._ahead is not None:
            self._ahead[1].end()
            self._ahead = None


class AsyncFile:
    """What `open_async` gives: the reads of a file object, awaited."""

    def __init__(
        self, file: io.BufferedReader, run: Callable[..., Awaitable[bytes]], size: int
    ) -> None:
        self._file = file
        self._run = run
        self.size = size
        self.closed = False

    async def read(self, length: int = -1) -> bytes:
        """At most `length` bytes, all to the end for -1."""
        if isinstance(self._file, CompleteFile):
            return self._file.read(length)
        return await self._run(self._file.read, length)

    async def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Where the next read begins."""
        return self._file.seek(offset, whence)

    async def tell(self) -> int:
        """The position."""
        return self._file.tell()

    async def close(self) -> None:
        """Close the file."""
        self.closed = True
        self._file.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def copy(source: Any, out: Any, callback: Any) -> None:
    """Kernel to kernel where both are real files, else through a buffer."""
    size = os.fstat(source.fileno()).st_size if isinstance(source, CompleteFile) else None
    callback.set_size(size if size is not None else getattr(source, "size", None))
    if size is not None and isinstance(out, io.BufferedWriter):
        out.flush()
        at = 0
        while at < size:
            done = os.sendfile(out.fileno(), source.fileno(), at, min(COPY_BYTES, size - at))
            if done == 0:
                raise OSError(f"'{source.path}' ends at {at} instead of {size}")
            at += done
            callback.relative_update(done)
        return
    while data := source.read(COPY_BYTES):
        out.write(data)
        callback.relative_update(len(data))
