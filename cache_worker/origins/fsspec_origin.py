"""Every other scheme, and `engine: fsspec`: a child process reads, the worker stays small.

The child is started by the first read, ended with the socket, and started again when it died.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

from cache_worker.origins.credentials import fingerprint, read_options, secret_files
from cache_worker.origins.retry import next_delay
from cacheop.api import fsspec_info
from cacheop.api.errors import (
    CacheopError,
    CredentialError,
    OriginChanged,
    OriginError,
    ProtocolError,
    from_wire,
)
from cacheop.api.wire import ERROR, HEADER, REQUEST, decode_header, decode_meta, encode_head

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from typing_extensions import Buffer

    from cache_worker.origins import Arrived, Listing, OriginObject
    from cacheop.api.dataset import Mount

ANSWER_SECONDS = 60.0
CHECK_ATTEMPTS = 2
BATCH_KEYS = 10_000
# What this worker's own process passes on; the rest of its environment is not the library's.
_RETRIED = (OriginError, ConnectionError, ProtocolError, TimeoutError)


def open_mount(mount: Mount, secrets_dir: Path) -> FsspecOrigin:
    """The origin of `mount`. CredentialError for a missing Secret; starts nothing yet."""
    return FsspecOrigin(mount, secrets_dir)


class FsspecOrigin:
    """One mount read through fsspec. Belongs to one asyncio loop, owns at most one child."""

    def __init__(self, mount: Mount, secrets_dir: Path) -> None:
        self._mount = mount
        self._secrets_dir = secrets_dir
        self._child: _Child | None = None
        self._start_lock = asyncio.Lock()
        self._closed = False
        self._options()

    def list_objects(self) -> Iterator[Listing]:
        """Every file below the mount point; imports fsspec, so only for the index child."""
        from cache_worker.origins import Listing
        from cache_worker.origins.fsspec_child import open_filesystem, translated

        url = self._mount.mount_point
        try:
            filesystem, root = open_filesystem(url, self._options())
            found: dict[str, Any] = filesystem.find(root, detail=True)
        except CacheopError:
            raise
        except Exception as error:
            raise translated(error, {}, url) from error
        base = root.rpartition("/")[0] if list(found) == [root] else root
        skip = len(base) + 1
        paths = iter(found)
        while batch := list(itertools.islice(paths, BATCH_KEYS)):
            infos = [found[path] for path in batch]
            yield Listing(
                keys=[path[skip:] for path in batch],
                sizes=[info.get("size") for info in infos],
                mtimes_ns=[fsspec_info.mtime_ns(info) for info in infos],
                etags=[fsspec_info.etag(info) for info in infos],
                version_ids=[fsspec_info.version_id(info) for info in infos],
            )

    async def fetch(
        self, obj: OriginObject, offset: int, length: int, arrived: Arrived | None = None
    ) -> Buffer:
        """Exactly `length` bytes of exactly `obj`; see `Origin.fetch`. Comes in one piece."""
        del arrived
        if not length:
            return b""
        meta = {
            "op": "read",
            "key": obj.key,
            "size": obj.size_bytes,
            "etag": obj.etag,
            "version_id": obj.version_id,
            "mtime_ns": obj.mtime_ns,
            "offset": offset,
            "length": length,
        }
        body = await self._persist(meta, None)
        if len(body) != length:
            raise OriginError(f"{obj.key!r} of {self._mount.mount_point}: {len(body)} bytes came")
        return body

    async def check(self) -> None:
        """Look at the mount point once."""
        await self._persist({"op": "check"}, CHECK_ATTEMPTS)

    async def close(self) -> None:
        """End the child."""
        self._closed = True
        async with self._start_lock:
            if self._child:
                await self._child.stop()
                self._child = None

    def _options(self) -> dict[str, Any]:
        options = read_options(self._mount, self._secrets_dir)
        options.pop("engine", None)
        return options

    async def _persist(self, meta: dict[str, Any], attempts: int | None) -> bytes:
        started, attempt, reread = time.monotonic(), 0, False
        while True:
            child: _Child | None = None
            try:
                child = await self._running()
                async with asyncio.timeout(ANSWER_SECONDS):
                    return await child.ask(meta)
            except OriginChanged:
                raise
            except CredentialError:
                if reread or not self._mount.encrypt_options:
                    raise
                reread = True
                await self._retire(child)
                continue
            except _RETRIED as error:
                attempt += 1
                elapsed = time.monotonic() - started
                delay = next_delay(attempt, elapsed, random.random(), attempts=attempts)
                if delay is None or self._closed:
                    raise self._gave_up(error, attempt) from error
            await asyncio.sleep(delay)

    def _gave_up(self, error: BaseException, attempts: int) -> OriginError:
        if isinstance(error, OriginError):
            return OriginError(f"{error.message}, {attempts} attempts", hint=error.hint)
        reason = str(error) or type(error).__name__
        return OriginError(
            f"the process that reads {self._mount.mount_point} does not answer: {reason}",
            hint="Its last words are in the worker's log",
        )

    async def _running(self) -> _Child:
        """The child, started if there is none, it died or its Secret files changed."""
        async with self._start_lock:
            if self._closed:
                raise OriginError(f"{self._mount.mount_point} is closed")
            seen = fingerprint(secret_files(self._mount, self._secrets_dir))
            if self._child and (self._child.dead or self._child.seen != seen):
                await self._child.stop()
                self._child = None
            if self._child is None:
                child = await _Child.start(seen)
                opening = {
                    "op": "open", "url": self._mount.mount_point, "options": self._options(),
                }  # fmt: skip
                try:
                    async with asyncio.timeout(ANSWER_SECONDS):
                        await child.ask(opening)
                except BaseException:
                    await child.stop()
                    raise
                self._child = child
            return self._child

    async def _retire(self, child: _Child | None) -> None:
        """Stop `child` so that the next read starts one with the credentials as they are now."""
        async with self._start_lock:
            if child and child is self._child:
                self._child = None
                await child.stop()


class _Child:
    """A running child and its socket. One task reads answers; askers write whole frames."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        seen: tuple[tuple[int, int, int], ...],
    ) -> None:
        self.seen = seen
        self._process = process
        self._reader = reader
        self._writer = writer
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._task = asyncio.create_task(self._receive())

    @classmethod
    async def start(cls, seen: tuple[tuple[int, int, int], ...]) -> _Child:
        """Start a child; it imports fsspec when it is told what to open."""
        ours, theirs = socket.socketpair()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "cache_worker",
                "fsspec-origin",
                str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )
        except OSError as error:
            ours.close()
            raise OriginError(f"cannot start the fsspec reader: {error}") from error
        finally:
            theirs.close()
        ours.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=ours, limit=1 << 20)
        return cls(process, reader, writer, seen)

    @property
    def dead(self) -> bool:
        """Whether it cannot answer any more."""
        return self._task.done()

    async def ask(self, meta: dict[str, Any]) -> bytes:
        """The payload that answers `meta`. ConnectionError when the child dies meanwhile."""
        if self.dead:
            raise ConnectionResetError("it ended")
        request_id = next(self._ids) & 0xFFFFFFFF
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[request_id] = answer
        try:
            self._writer.write(encode_head(REQUEST, request_id, meta, 0))
            await self._writer.drain()
            return await answer
        finally:
            self._waiting.pop(request_id, None)

    async def stop(self) -> None:
        """Close the socket, kill the process if that is not enough, and wait for it."""
        self._task.cancel()
        self._writer.close()
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _receive(self) -> None:
        try:
            while True:
                header = await self._reader.readexactly(HEADER.size)
                kind, request_id, meta_bytes, payload_bytes = decode_header(header)
                meta = decode_meta(await self._reader.readexactly(meta_bytes))
                payload = await self._reader.readexactly(payload_bytes)
                waiting = self._waiting.get(request_id)
                if waiting is None or waiting.done():
                    continue
                if kind == ERROR:
                    waiting.set_exception(from_wire(meta))
                else:
                    waiting.set_result(payload)
        except (asyncio.IncompleteReadError, OSError, ProtocolError):
            pass  # told to everyone who waits, below
        finally:
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(ConnectionResetError("it ended"))
