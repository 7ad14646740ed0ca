"""A worker as peers see it: files in a directory, checksums beside them, an origin in memory."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import xxhash

from cache_worker.cluster.view import Member
from cache_worker.peers.client import Peers
from cache_worker.peers.server import PeerServer
from cache_worker.peers.service import Asker, OpenChunk, Provided
from cacheop.api.chunk import chunk_span
from cacheop.api.errors import CacheopError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

TOKEN = "sesame"
VERSION = "v1"


@dataclass
class PeerService:
    """Serves what `put` stored, and provides what is in `origin`."""

    directory: Path
    origin: dict[int, bytes] = field(default_factory=dict)
    """Whole files by row."""
    may_store: bool = True
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    """Closed: whoever has to be provided for waits."""
    fails: dict[int, CacheopError] = field(default_factory=dict)
    checksums: dict[tuple[str, int, int], int] = field(default_factory=dict)
    dropped: set[int] = field(default_factory=set)
    """Rows that are no longer good once they were sent."""
    providing: int = 0
    most_providing: int = 0
    cancelled: int = 0
    provided: list[tuple[int, int, int, Asker]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.gate.set()

    def path(self, version: str, row: int) -> Path:
        return self.directory / f"{version}-{row}"

    def put(self, row: int, data: bytes, version: str = VERSION) -> None:
        new = self.directory / "new"  # whoever has the old file open keeps its bytes
        new.write_bytes(data)
        new.rename(self.path(version, row))
        for chunk in range(max(1, -(-len(data) // (8 << 20)))):
            offset, length = chunk_span(len(data), chunk)
            digest = xxhash.xxh3_64_intdigest(data[offset : offset + length])
            self.checksums[version, row, chunk] = digest

    def open_present(self, version: str, row: int, chunk: int) -> OpenChunk | None:
        checksum = self.checksums.get((version, row, chunk))
        if checksum is None:
            return None
        fd = os.open(self.path(version, row), os.O_RDONLY | os.O_CLOEXEC)
        offset, length = chunk_span(os.fstat(fd).st_size, chunk)
        return OpenChunk(fd, offset, length, checksum, lambda: row not in self.dropped)

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
    ) -> Provided | None:
        assert without == ()
        if only_if_present:
            raise NotFoundError("absent")
        self.providing += 1
        self.most_providing = max(self.most_providing, self.providing)
        try:
            await self.gate.wait()
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.providing -= 1
        if row in self.fails:
            raise self.fails[row]
        self.provided.append((row, chunk, hops, asker))
        data = self.origin[row]
        if self.may_store:
            self.put(row, data, version)
            return None
        offset, length = chunk_span(len(data), chunk)
        part = data[offset : offset + length]
        return Provided(memoryview(part), xxhash.xxh3_64_intdigest(part))

    async def answer(
        self, op: str, meta: dict[str, Any], asker: Asker
    ) -> tuple[dict[str, Any], bytes | memoryview]:
        if op == "hello":
            return {"node": "b", "asker": asker.node, "zone": asker.zone}, b""
        if op == "file":
            return {"size": 1000}, b"x" * meta["length"]
        if op == "wait":
            await asyncio.sleep(meta["wait_seconds"])
            return {}, b""
        raise NotFoundError(f"no operation {op}")


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait for it to come true."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - of threads
            await asyncio.sleep(0.005)


@dataclass
class Pair:
    """Node a that asks, node b that serves."""

    service: PeerService
    server: PeerServer
    peers: Peers
    member: Member

    async def fetch(self, row: int, length: int, chunk: int = 0, **more: Any) -> bytes:
        found = await self.peers.fetch(self.member, VERSION, row, chunk, length, **more)
        assert found.checksum == xxhash.xxh3_64_intdigest(found.data)
        return bytes(found.data)


@asynccontextmanager
async def pair(directory: Path, *, caps: Any = None, limits: Any = None) -> AsyncIterator[Pair]:
    """Both, on this loop, over 127.0.0.1."""
    service = PeerService(directory)
    server = PeerServer(service, TOKEN, "b", "z1", caps)
    member = Member("b", server.listen("127.0.0.1", 0), "z1")
    peers = Peers(TOKEN, "a", "z1", limits)
    try:
        yield Pair(service, server, peers, member)
    finally:
        await peers.close()
        await server.close()


def fds() -> int:
    return len(os.listdir("/proc/self/fd"))


def peer_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("peer")]


@asynccontextmanager
async def two(directory, **more):
    """A pair, and proof that it left nothing behind."""
    gc.collect()  # what an earlier test left to the collector is not ours
    before = fds()
    async with pair(directory, **more) as nodes:
        yield nodes
    await asyncio.sleep(0.01)
    assert peer_threads() == []
    assert fds() <= before
    assert len(asyncio.all_tasks()) == 1
