"""What each operation of docs/protocol.md does: fields in, calls, answers out."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

from cache_worker.evicting import evict_rows
from cache_worker.hottest import hottest
from cacheop.api import names
from cacheop.api.errors import NotFoundError, ProtocolError, UserError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cache_worker.control import Answer, Session
    from cache_worker.indexing import Running
    from cache_worker.versions import Version
    from cache_worker.worker import Worker
    from cacheop.api.wire import Frame

PROGRESS_SECONDS = 0.25
READ_MAX_BYTES = 64 << 20
DRAIN_SECONDS = 300.0
HOT_MAX = 1000
READER_MAX = 64
PINNED = "a Native mount shows these files: unmount it first"


class WorkerOperations:
    """The operations of one worker, found by their name."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    async def run(self, session: Session, request: Frame) -> Answer:
        """See control.Operations."""
        op = str(request.meta["op"])
        handler: Callable[[Session, Frame], Awaitable[Answer]] = getattr(self, f"_{op}")
        return await handler(session, request)

    async def _auth(self, session: Session, request: Frame) -> Answer:
        del session, request
        raise ProtocolError("already authenticated")

    async def _hello(self, session: Session, request: Frame) -> Answer:
        del session, request
        return {**self._worker.identity(), **self._worker.health(), "pid": os.getpid()}, b""

    async def _health(self, session: Session, request: Frame) -> Answer:
        del session, request
        return self._worker.health(), b""

    async def _bind(self, session: Session, request: Frame) -> Answer:
        version = self._worker.versions.get(str(request.meta.get("version", "")))
        version.use()
        session.on_close.append(version.unuse)
        session.reader = str(request.meta.get("reader", ""))[:READER_MAX]
        return {
            "version": version.name,
            "index": names.index_path(version.name),
            "slots": names.slots_path(version.name),
            "table": names.CHUNK_TABLE,
            "data": names.data_path(version.name),
        }, b""

    async def _read(self, session: Session, request: Frame) -> Answer:
        meta = request.meta
        version = self._worker.versions.get(str(meta["version"]))
        row, offset, length = int(meta["row"]), int(meta["offset"]), int(meta["length"])
        if not 0 <= row < version.index.rows or version.index.is_directory(row):
            raise NotFoundError(f"row {row} of version {version.name} is not a file")
        if offset < 0 or not 0 <= length <= READ_MAX_BYTES:
            raise ProtocolError(f"bad span {offset}+{length}: at most {READ_MAX_BYTES} bytes")
        inline = bool(meta.get("inline")) or not session.same_machine
        self._tell(session, version, meta.get("touched", {}))
        self._worker.reading.read(session, session.reader, version, row, offset, length)
        found = await self._worker.cache.read(version, row, offset, length, inline=inline)
        return ({"present": True}, b"") if found is None else ({"present": False}, found)

    async def _manifest(self, session: Session, request: Frame) -> Answer:
        del session
        version = self._worker.versions.get(str(request.meta["version"]))
        offset, length = int(request.meta["offset"]), int(request.meta["length"])
        if offset < 0 or not 0 <= length <= READ_MAX_BYTES:
            raise ProtocolError(f"bad span {offset}+{length}: at most {READ_MAX_BYTES} bytes")
        path = self._worker.versions.root / names.index_path(version.name)
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            return {"size": size}, os.pread(file.fileno(), length, offset)

    async def _touched(self, session: Session, request: Frame) -> Answer:
        version = self._worker.versions.get(str(request.meta["version"]))
        self._tell(session, version, request.meta["rows"])
        return {}, b""

    async def _plan(self, session: Session, request: Frame) -> Answer:
        version = self._worker.versions.get(str(request.meta["version"]))
        self._hear_of_end(session)
        state = self._worker.planning.plan(
            session, session.reader, version, request.meta, request.payload
        )
        return {"state": state}, b""

    def _hear_of_end(self, session: Session) -> None:
        if not session.tells:
            session.tells = True
            session.on_close.append(lambda: self._worker.planning.gone(session))
            session.on_close.append(lambda: self._worker.reading.closed(session))

    def _tell(self, session: Session, version: Version, rows: dict[str, int]) -> None:
        """What was read without asking us, in order."""
        self._hear_of_end(session)
        known = {
            int(row): int(times)
            for row, times in rows.items()
            if 0 <= int(row) < version.index.rows and not version.index.is_directory(int(row))
        }
        for row, times in known.items():
            self._worker.cache.touched(version, row, times)
        self._worker.reading.touched(session, session.reader, version, known)

    async def _status(self, session: Session, request: Frame) -> Answer:
        del session, request
        return self._worker.status(), b""

    async def _versions(self, session: Session, request: Frame) -> Answer:
        del session, request
        versions = self._worker.versions
        rows = [
            {
                "version": v.name,
                "files": v.index.files,
                "bytes": v.index.bytes,
                "cached_bytes": self._worker.store.cached_bytes(v),
                "created": versions.created_seconds(v.name),
                "current": v.name == versions.state.current,
                "in_use": versions.is_in_use(v.name),
            }
            for v in versions.all()
        ]
        return {"versions": sorted(rows, key=lambda row: row["created"])}, b""

    async def _refresh(self, session: Session, request: Frame) -> Answer:
        latest: list[Running] = []
        refresh = asyncio.ensure_future(self._worker.refresh(latest.append))
        try:
            while not (await asyncio.wait({refresh}, timeout=PROGRESS_SECONDS))[0]:
                if latest:
                    event = {"keys": latest[-1].keys, "seconds": latest[-1].seconds}
                    await session.send_event(request.request_id, event)
            return await refresh, b""
        finally:
            refresh.cancel()

    async def _load(self, session: Session, request: Frame) -> Answer:
        worker = self._worker
        version = worker.versions.get(str(request.meta.get("version", "")))
        rows = _rows(version, request.meta.get("paths") or [])
        version.use()
        load = worker.load(version, rows, _replicas(request.meta))
        if limit := int(request.meta.get("max_origin_bytes_per_second") or 0):
            load.limit(limit)
        task = asyncio.create_task(load.run())
        try:
            while not (await asyncio.wait({task}, timeout=PROGRESS_SECONDS))[0]:
                await session.send_event(request.request_id, load.report())
            return await task, b""
        finally:
            task.cancel()
            version.unuse()

    async def _evict(self, session: Session, request: Frame) -> Answer:
        del session
        worker, name = self._worker, str(request.meta.get("version", ""))
        paths = request.meta.get("paths") or []
        version = worker.versions.get(name)
        if name and paths:
            raise UserError("evict takes paths or a version, not both")
        if name and version is not worker.versions.get():
            before = worker.store.space.used_bytes
            files = version.index.files
            await worker.indexing.drop(name)
            gone = before - worker.store.space.used_bytes
            return {"bytes": gone, "files": files, "pinned_files": 0, "why": ""}, b""
        with version.used():
            done = await evict_rows(worker.store, version, _rows(version, paths))
        return {
            "bytes": done.bytes,
            "files": done.files,
            "pinned_files": done.pinned_files,
            "why": PINNED if done.pinned_files else "",
        }, b""

    async def _publish(self, session: Session, request: Frame) -> Answer:
        del session
        return await self._worker.publishing.publish(str(request.meta.get("version", ""))), b""

    async def _served(self, session: Session, request: Frame) -> Answer:
        del session
        self._worker.mounts.served(str(request.meta["id"]), dict(request.meta["requests"]))
        return {}, b""

    async def _suspend(self, session: Session, request: Frame) -> Answer:
        del session, request
        self._worker.suspend(True)
        return {}, b""

    async def _resume(self, session: Session, request: Frame) -> Answer:
        del session, request
        self._worker.suspend(False)
        return {}, b""

    async def _drain(self, session: Session, request: Frame) -> Answer:
        drain, seconds = self._worker.drain(), float(request.meta.get("seconds", DRAIN_SECONDS))
        task = asyncio.create_task(drain.run(seconds))
        try:
            while not (await asyncio.wait({task}, timeout=PROGRESS_SECONDS))[0]:
                await session.send_event(request.request_id, drain.progress.report())
            return await task, b""
        finally:
            task.cancel()

    async def _hot(self, session: Session, request: Frame) -> Answer:
        del session
        count = min(HOT_MAX, int(request.meta.get("count", 10)))
        version = self._worker.versions.get()
        with version.used():
            return {"files": await hottest(self._worker.store, version, count)}, b""

    async def _configure(self, session: Session, request: Frame) -> Answer:
        del session
        changed = self._worker.configuring.configure(dict(request.meta["dataset"]))
        return {"changed": changed}, b""

    async def _shutdown(self, session: Session, request: Frame) -> Answer:
        del session, request
        asyncio.get_running_loop().call_later(0.05, self._worker.stop)
        return {}, b""


def _replicas(meta: dict[str, Any]) -> int | None:
    """On how many nodes each chunk is to be, where this node loads its share; None = all here."""
    if not meta.get("share") or meta.get("replicas") == "all":
        return None
    return int(meta.get("replicas", 1))


def _rows(version: Version, paths: list[str]) -> list[range]:
    """The rows at and below `paths` ([] = all). NotFoundError names the first that is not there."""
    rows: list[range] = []
    for path in paths or [""]:
        row = version.index.resolve(path)
        if row is None:
            raise NotFoundError(
                f"{path} is not in version {version.name}", hint="`cacheop ls` shows what is"
            )
        rows += version.index.subtree(row)
    return rows
