"""What this node gives its peers: chunks, manifests, and what they may have it do.

`open_present` runs in the threads of the peers' server and only reads; all else runs on the loop.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Any

import xxhash

from cache_worker.cluster.arriving import Arriving
from cache_worker.cluster.route import Asked
from cache_worker.members.facts import to_meta
from cache_worker.peers.service import OpenChunk, Provided
from cacheop.api import names
from cacheop.api.chunk import chunk_count, chunk_span
from cacheop.api.errors import NotFoundError, ProtocolError
from cacheop.api.table import PRESENT, STATE_MASK, SUSPECT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from cache_worker.cache import Cache
    from cache_worker.cluster.following import Following
    from cache_worker.peers.service import Asker, Incoming
    from cache_worker.reading import Reading
    from cache_worker.versions import Version

ADOPT_WAIT_SECONDS = 10.0
"""How long a peer that asks for a version we are about to adopt is kept waiting."""
HEAR_SECONDS = 2.5
"""How long it may take until we hear that there is that version."""
UNKNOWN_SECONDS = 60.0
"""A version that was waited for in vain is not waited for again for so long."""
ADOPT_LOOK_SECONDS = 0.02
PIECE_MAX_BYTES = 64 << 20
PULLS_AT_ONCE = 16
NEWS_MAX = 4096
FILES = {"index": names.index_path, "arrow": names.arrow_path}


class Giving:
    """peers.service.Service of a worker."""

    def __init__(self, cache: Cache, following: Following, reading: Reading) -> None:
        self._cache, self._store, self._following = cache, cache.store, following
        self._reading = reading
        self._versions = cache.store.versions
        self._unknown: dict[str, float] = {}
        """Versions that were waited for in vain; until when they are not waited for again."""
        self._ops: dict[str, Callable[[dict[str, Any], Asker], Awaitable[Any]]] = {
            "hello": self._hello,
            "current": self._current,
            "file": self._file,
            "refresh": self._refresh,
            "pull": self._pull,
            "verify": self._verify,
            "news": self._news,
        }

    # -- chunks -----------------------------------------------------------------------------------

    def open_present(self, version: str, row: int, chunk: int) -> OpenChunk | None:
        """See peers.service.Service."""
        try:
            found = self._versions.get(version)
        except NotFoundError:
            return None
        self._check(found, row, chunk)
        slot = found.slots.first_slot(row) + chunk
        table = self._store.table
        before = table.state_byte(slot)
        if before & STATE_MASK != PRESENT:
            return None
        offset, length = chunk_span(found.index.size(row), chunk)
        try:
            fd = os.open(found.path(row), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None  # another version's tree has it, or it goes just now: the loop finds out
        checksum = table.checksum(slot)

        def still_good() -> bool:
            return table.state_byte(slot) == before

        return OpenChunk(fd, offset, length, checksum, still_good)

    async def provide(
        self,
        version: str,
        row: int,
        chunk: int,
        length: int,
        *,
        only_if_present: bool,
        hops: int,
        without: tuple[str, ...],
        asker: Asker,
    ) -> Provided | Incoming | None:
        """See peers.service.Service."""
        del length
        found = await self._version(version, wait=not only_if_present)
        self._check(found, row, chunk)
        slot = found.slots.first_slot(row) + chunk
        if only_if_present:
            state = self._store.table.state(slot)
            if state == SUSPECT:
                with found.used():
                    await self._store.verify(found, row, chunk)
                state = self._store.table.state(slot)
            if state == PRESENT and self._store.has_file(found, row):
                return None
            arriving = self._cache.arriving(slot)
            if arriving is not None:
                return arriving
            raise NotFoundError(f"chunk {chunk} of row {row} is not here")
        asked = Asked(asker.node, hops, frozenset(without))
        self._reading.asked(asker.node, found, slot)
        data = await self._cache.give(found, row, chunk, asked)
        if data is None:
            if not self._store.has_file(found, row):
                self._store.drop_file(found, row)
            return None
        if isinstance(data, Arriving):
            return data
        return Provided(data, await asyncio.to_thread(xxhash.xxh3_64_intdigest, data))

    async def _version(self, name: str, *, wait: bool) -> Version:
        """The version; one that others have already is on its way to us too.

        Not one that is old: we dropped it, and who still reads it is to ask elsewhere at once.
        """
        started = time.monotonic()
        while True:
            try:
                return self._versions.get(name)
            except NotFoundError:
                now = time.monotonic()
                limit = ADOPT_WAIT_SECONDS if self._following.expects(name) else HEAR_SECONDS
                if not wait or now < self._unknown.get(name, now) or name in self._versions.gone:
                    raise
                if now - started > limit:
                    self._unknown = {n: end for n, end in self._unknown.items() if end > now}
                    self._unknown[name] = now + UNKNOWN_SECONDS
                    raise
            await asyncio.sleep(ADOPT_LOOK_SECONDS)

    def _check(self, version: Version, row: int, chunk: int) -> None:
        index = version.index
        if not 0 <= row < index.rows or index.is_directory(row):
            raise NotFoundError(f"row {row} of version {version.name} is not a file")
        if not 0 <= chunk < chunk_count(index.size(row)):
            raise NotFoundError(f"row {row} of version {version.name} has no chunk {chunk}")

    # -- the rest ---------------------------------------------------------------------------------

    async def answer(
        self, op: str, meta: dict[str, Any], asker: Asker
    ) -> tuple[dict[str, Any], bytes | memoryview]:
        """See peers.service.Service."""
        handler = self._ops.get(op)
        if handler is None:
            raise ProtocolError(f"operation {op!r} is not one of peers")
        try:
            answer = await handler(meta, asker)
        except (KeyError, TypeError, ValueError) as error:
            raise ProtocolError(f"bad request {op!r} of {asker.node}: {error!r}") from error
        return answer if isinstance(answer, tuple) else (answer, b"")

    async def _hello(self, meta: dict[str, Any], asker: Asker) -> dict[str, Any]:
        del meta, asker
        return to_meta(self._following.my_facts)

    async def _current(self, meta: dict[str, Any], asker: Asker) -> dict[str, Any]:
        del asker
        return await self._following.current(float(meta["wait_seconds"]))

    async def _refresh(self, meta: dict[str, Any], asker: Asker) -> dict[str, Any]:
        del meta, asker
        return await self._following.list_here()

    async def _file(
        self, meta: dict[str, Any], asker: Asker
    ) -> tuple[dict[str, Any], bytes | memoryview]:
        del asker
        version = self._versions.get(str(meta["version"]))
        path = self._versions.root / FILES[str(meta["kind"])](version.name)
        offset, length = int(meta["offset"]), int(meta["length"])
        if offset < 0 or not 0 <= length <= PIECE_MAX_BYTES:
            raise ProtocolError(f"bad span {offset}+{length}: at most {PIECE_MAX_BYTES} bytes")
        with version.used():
            size, piece = await asyncio.to_thread(_read, path, offset, length)
        return {"size": size}, piece

    async def _pull(self, meta: dict[str, Any], asker: Asker) -> dict[str, Any]:
        """Get chunks that the asker has and that we are to own."""
        version = await self._version(str(meta["version"]), wait=True)
        chunks = [(int(row), int(chunk)) for row, chunk in meta["chunks"]]
        for row, chunk in chunks:
            self._check(version, row, chunk)
        asked = Asked(asker.node, holds=True)
        places = asyncio.Semaphore(PULLS_AT_ONCE)

        async def pull(row: int, chunk: int) -> bool:
            async with places:
                found = await self._cache.ensure(version, row, chunk, demand=False, asked=asked)
                return found is True

        with version.used():
            found = await asyncio.gather(
                *(pull(row, chunk) for row, chunk in chunks), return_exceptions=True
            )
        failed = [pair for pair, done in zip(chunks, found, strict=True) if done is not True]
        return {"present": len(chunks) - len(failed), "failed": failed}

    async def _news(self, meta: dict[str, Any], asker: Asker) -> dict[str, Any]:
        """What we got from the origin since the asker heard of it."""
        del asker
        most = max(0, min(int(meta["most"]), NEWS_MAX))
        after, chunks = self._cache.news.since(str(meta["version"]), int(meta["after"]), most)
        return {"after": after, "chunks": chunks}

    async def _verify(self, meta: dict[str, Any], asker: Asker) -> dict[str, Any]:
        """A peer got bad bytes of us: if our disk has them, they go."""
        del asker
        version = self._versions.get(str(meta["version"]))
        row, chunk = int(meta["row"]), int(meta["chunk"])
        self._check(version, row, chunk)
        with version.used():
            return {"good": await self._store.recheck(version, row, chunk)}


def _read(path: Path, offset: int, length: int) -> tuple[int, bytes]:
    """(size of the file, a piece of it); in a thread, which opens and closes."""
    with path.open("rb") as file:
        return os.fstat(file.fileno()).st_size, os.pread(file.fileno(), length, offset)
