"""s3, gs, az and http by obstore: Rust does TLS, signing and copying, this file what is checked.

Every answer's own etag (or version, or size and mtime) is compared with the manifest's, besides the
condition that goes with the request: some servers do not know If-Match. Retries are ours, not
obstore's, so that one budget holds for connecting, answering and the body.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from typing import TYPE_CHECKING, Any, TypeVar

import obstore
from obstore.exceptions import BaseError

from cache_worker.origins.address import Address, parse_address
from cache_worker.origins.credentials import (
    NO_PROFILE,
    Profile,
    fingerprint,
    forbid_metadata,
    profile_files,
    read_options,
    read_profile,
    secret_files,
)
from cache_worker.origins.faults import Fault, Kind, classify, raised
from cache_worker.origins.options import translate
from cache_worker.origins.retry import next_delay
from cache_worker.origins.store_opener import open_store
from cacheop.api.errors import CredentialError, OriginChanged, UserError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from typing_extensions import Buffer

    from cache_worker.origins import Arrived, Listing, OriginObject
    from cache_worker.origins.options import StoreOptions
    from cacheop.api.dataset import Mount

T = TypeVar("T")

OBSTORE_ERRORS = (BaseError, ValueError, OSError)
WATCH_SECONDS = 1.0
PIECE_BYTES = 512 << 10
CHECK_ATTEMPTS = 3
NANOSECONDS = 1_000_000_000


def open_mount(mount: Mount, secrets_dir: Path) -> ObjectStoreOrigin:
    """The origin of `mount`. UserError or CredentialError; asks the origin nothing."""
    return ObjectStoreOrigin(mount, secrets_dir)


class ObjectStoreOrigin:
    """One mount in an object store or on a web server.

    Belongs to one asyncio loop; no locks but the one for reading the credentials again.
    """

    def __init__(self, mount: Mount, secrets_dir: Path) -> None:
        self._mount = mount
        self._secrets_dir = secrets_dir
        self.address: Address = parse_address(mount.mount_point)
        self._generation = 0
        self._store: Any = None
        self._reread_lock = asyncio.Lock()
        self._watched: list[Path] = []
        self._seen: tuple[tuple[int, int, int], ...] = ()
        self._look_at = 0.0
        self._open()

    def list_objects(self) -> Iterator[Listing]:
        """Every object below the mount point. OriginError after a minute of retries."""
        from cache_worker.origins.object_listing import list_objects

        # The lister waits for no reader: obstore's own retries, page by page, and patient.
        return list_objects(self.address, self.options, self._profile)

    async def fetch(
        self, obj: OriginObject, offset: int, length: int, arrived: Arrived | None = None
    ) -> Buffer:
        """Exactly `length` bytes of exactly `obj`; see `Origin.fetch`."""
        if not length:
            return b""
        if not obj.etag and not obj.version_id:
            arrived = None  # whether it is the right object shows when it is all here
        return await self._persist(
            lambda store: self._read(store, obj, offset, length, arrived),
            obj.key,
            self.options.attempts,
        )

    async def check(self) -> None:
        """One cheap request. UserError too when there is nothing below the mount point."""
        await self._persist(self._look, "", CHECK_ATTEMPTS)

    async def close(self) -> None:
        """Let the connections go; obstore closes them with the store."""
        self._store = None

    def _open(self) -> None:
        environment = os.environ
        options = read_options(self._mount, self._secrets_dir)
        options.pop("engine", None)
        self._watched = secret_files(self._mount, self._secrets_dir)
        self.options: StoreOptions = translate(self.address, options, environment)
        self._profile: Profile = NO_PROFILE
        if self.address.scheme in {"s3", "s3a"} and not self.options.anonymous:
            self._watched += profile_files(environment)
            if not self.options.key:
                self._profile = read_profile(self.options.profile, environment)
                if not self._profile.key:
                    forbid_metadata(self._mount.mount_point, environment)
        self._store = open_store(self.address, self.options, self._profile)
        self._seen = fingerprint(self._watched)

    def _reopen_when_changed(self) -> None:
        """Take up new Secret and profile files; looked at once a second at most."""
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + WATCH_SECONDS
        if self._watched and fingerprint(self._watched) != self._seen:
            self._generation += 1
            self._open()

    async def _reread(self, generation: int) -> None:
        """Read the credentials again, once for all reads that were refused with the old ones."""
        async with self._reread_lock:
            if generation == self._generation:
                self._generation += 1
                self._open()

    async def _persist(
        self, operation: Callable[[Any], Awaitable[T]], key: str, attempts: int | None
    ) -> T:
        """`operation(store)`, again while that can help. Raises only errors of the one tree."""
        started = time.monotonic()
        attempt, reread = 0, False
        while True:
            self._reopen_when_changed()
            generation = self._generation
            try:
                return await operation(self._store)
            except (CredentialError, OriginChanged, UserError):
                raise
            except OBSTORE_ERRORS as error:
                fault, cause = classify(type(error).__name__, str(error)), error
            if fault.kind is Kind.REFUSED and not reread and not self.options.anonymous:
                reread = True
                await self._reread(generation)
                continue
            attempt += 1
            delay = None
            if fault.kind in {Kind.RETRY, Kind.NO_CREDENTIALS}:
                elapsed = time.monotonic() - started
                delay = next_delay(attempt, elapsed, random.random(), attempts=attempts)
            if delay is None:
                raise raised(fault, self.address.mount_point, key, attempt) from cause
            await asyncio.sleep(delay)

    def _read(
        self, store: Any, obj: OriginObject, offset: int, length: int, arrived: Arrived | None
    ) -> Awaitable[Buffer]:
        # Not a coroutine of its own: one frame less for each of many small files.
        paths = self.address.paths(obj.key)
        if len(paths) == 1:
            return self._read_path(store, paths[0], obj, offset, length, arrived)
        return self._read_either(store, paths, obj, offset, length, arrived)

    async def _read_either(
        self,
        store: Any,
        paths: tuple[str, ...],
        obj: OriginObject,
        offset: int,
        length: int,
        arrived: Arrived | None,
    ) -> Buffer:
        for path in paths[:-1]:
            try:
                return await self._read_path(store, path, obj, offset, length, arrived)
            except (FileNotFoundError, OriginChanged):
                continue  # the mount point itself may be the object
        return await self._read_path(store, paths[-1], obj, offset, length, arrived)

    async def _read_path(
        self,
        store: Any,
        path: str,
        obj: OriginObject,
        offset: int,
        length: int,
        arrived: Arrived | None,
    ) -> Buffer:
        options: dict[str, Any] = {}
        if length != obj.size_bytes:
            options["range"] = (offset, offset + length)
        if obj.version_id:
            options["version"] = obj.version_id
        elif obj.etag and not obj.etag.startswith("W/"):
            options["if_match"] = obj.etag  # a weak etag never matches (RFC 9110, 13.1.1)
        result = await obstore.get_async(store, path, options=options)  # type: ignore[arg-type]
        self._compare(obj, result.meta)
        body = await (_pieces(result, arrived) if arrived else result.bytes_async())
        if len(body) != length:
            raise ConnectionError(f"{len(body)} bytes came instead of {length}")
        if not obj.etag and not obj.version_id:
            # Nothing names the content: what changed while it was sent shows afterwards only.
            self._compare(obj, await obstore.head_async(store, path))
        return body

    def _compare(self, obj: OriginObject, meta: Any) -> None:
        """Raise OriginChanged if the answer is about another object than the manifest's."""
        if meta["size"] != obj.size_bytes:
            what = f"its size is {meta['size']}, not {obj.size_bytes} bytes"
        elif obj.etag and meta["e_tag"] != obj.etag:
            what = f"its etag is {meta['e_tag']}, not {obj.etag}"
        elif obj.etag or obj.version_id or not obj.mtime_ns:
            return
        elif int(meta["last_modified"].timestamp()) != obj.mtime_ns // NANOSECONDS:
            what = f"it was modified at {meta['last_modified']}"
        else:
            return
        raise raised(Fault(Kind.CHANGED, what), self.address.mount_point, obj.key, 1)

    async def _look(self, store: Any) -> None:
        if self.address.scheme in {"http", "https"}:
            await obstore.head_async(store, self.address.prefix)
            return
        async for batch in obstore.list(store, self.address.prefix or None, chunk_size=1):
            if batch:
                return
        if self.address.may_be_object:
            try:
                await obstore.head_async(store, self.address.prefix)
            except FileNotFoundError:
                pass
            else:
                return
        raise UserError(
            f"nothing is below {self.address.mount_point}",
            hint="Check the path, and that it is the bucket you mean",
        )


async def _pieces(result: Any, arrived: Arrived) -> bytes:
    """The whole body, told of piece by piece."""
    pieces: list[memoryview] = []
    at = 0
    async for part in result.stream(min_chunk_size=PIECE_BYTES):
        piece = memoryview(part)
        arrived(at, piece)
        pieces.append(piece)
        at += len(piece)
    return b"".join(pieces)
