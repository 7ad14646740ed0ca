"""New versions: run the index child, take over what it made, let old versions go."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cacheop.api import names
from cacheop.api.errors import CacheopError, SuspendedError, UserError, from_wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from cache_worker.cache import Cache
    from cache_worker.settings import Settings
    from cache_worker.store import Store

log = logging.getLogger(__name__)

LINE_BYTES = 1 << 20
CHILD_STOP_SECONDS = 5.0


@dataclass(slots=True)
class Running:
    """The index child's progress."""

    keys: int = 0
    seconds: float = 0.0


class Indexing:
    """Owns the index child and the deletion of old versions. One refresh at a time."""

    def __init__(self, settings: Settings, store: Store, cache: Cache) -> None:
        self._settings, self._store, self._cache = settings, store, cache
        self.running: Running | None = None
        self.error: CacheopError | None = None
        """Why the last refresh failed; None when it worked."""
        self.listed: Callable[[str, list[str]], None] = _nobody
        """Told of each version that was listed here, and what was kept before, oldest first."""
        self._refresh: asyncio.Task[dict[str, Any]] | None = None
        self._listeners: set[Callable[[Running], None]] = set()
        self._manifests = asyncio.Lock()  # one child at a time looks at manifest/

    async def refresh(self, progress: Callable[[Running], None] | None = None) -> dict[str, Any]:
        """List the origin; the result. Whoever asks while one runs gets that one's result."""
        if self._cache.suspended:
            raise SuspendedError("the Dataset is suspended: the origin is not listed")
        if self._refresh is None or self._refresh.done():
            self._refresh = asyncio.create_task(self._run())
        if progress:
            self._listeners.add(progress)
        try:
            return await asyncio.shield(self._refresh)
        finally:
            if progress:
                self._listeners.discard(progress)

    async def _run(self) -> dict[str, Any]:
        self.running = Running()
        started = time.monotonic()
        try:
            # What is half deleted must not be taken for a version that shares its files.
            await self._finish_drops()
            found: dict[str, Any] = {}
            before = list(self._store.versions.state.kept)
            self._cache.counters.origin_requests["list"] += 1
            async with self._manifests:
                async for line in self._child("index", str(self._settings.path)):
                    found = line
                    self._progress(line)
                if "version" not in found:
                    raise CacheopError("the index child ended without a result")
                self._take(found)
            # Here, not where somebody waits for it: who asked for the refresh may go away.
            self.listed(str(found["version"]), before)
            await self.drop_old()
            log.info(
                "version %s: %d files, indexed in %.1f s",
                found["version"], found["files"], time.monotonic() - started,
            )  # fmt: skip
        except CacheopError as error:
            self.error = error
            raise
        else:
            self.error = None
            return found
        finally:
            self.running = None

    async def adopt(self, version: str, fetch: Callable[[], Awaitable[None]]) -> dict[str, Any]:
        """Take over a version that another node listed; `fetch` brings its files here."""
        self.running = Running()
        try:
            await self._finish_drops()
            async with self._manifests:
                await fetch()
                found: dict[str, Any] = {}
                async for line in self._child("adopt", str(self._settings.path), version):
                    found = line
                    self._progress(line)
                self._take(found)
        except CacheopError as error:
            self.error = error
            raise
        else:
            self.error = None
            log.info("version %s: %d files, from a peer", version, found["files"])
            return found
        finally:
            self.running = None

    def _progress(self, line: dict[str, Any]) -> None:
        if "error" in line:
            raise from_wire(line)
        if "version" not in line:
            self.running = Running(int(line["keys"]), float(line["seconds"]))
            for listener in list(self._listeners):
                listener(self.running)

    def _take(self, found: dict[str, Any]) -> None:
        versions, name = self._store.versions, str(found["version"])
        version = versions.open(name)
        try:
            self._store.table.use_slots(version.slots_end())
        except CacheopError:
            versions.close(name)
            raise
        versions.add(name)
        if not self.choose_version():
            wanted = self._settings.dataset.spec.version
            raise UserError(
                f"spec.version {wanted} is not kept here; the origin has version {name} now",
                hint="Name a version that `cacheop versions` shows, or leave spec.version out",
            )

    def choose_version(self) -> bool:
        """Make what spec.version names the current version, else the newest; False if not here.

        Then none is current: a reader gets an error, never another version's bytes.
        """
        versions, wanted = self._store.versions, self._settings.dataset.spec.version
        found = not wanted or wanted in versions.state.kept
        current = (wanted or versions.newest()) if found else ""
        if versions.state.current != current:
            versions.state.current = current
            versions.save()
        return found

    async def close(self) -> None:
        """Stop a refresh that is under way."""
        if self._refresh is not None:
            self._refresh.cancel()
            await asyncio.gather(self._refresh, return_exceptions=True)

    async def drop_old(self) -> None:
        """Let versions go that are neither kept nor in use, and what a crash left half-deleted."""
        versions = self._store.versions
        for name in versions.droppable(self._settings.dataset.spec.keep_versions):
            with contextlib.suppress(UserError):  # used again by now: another time
                await self.drop(name)
        await self._finish_drops()

    async def _finish_drops(self) -> None:
        for name in list(self._store.versions.state.dropping):
            await self.drop(name)

    async def drop(self, name: str) -> None:
        """Delete a version; what other versions share stays. UserError: it is in use."""
        versions = self._store.versions
        async with self._manifests:
            if name in versions.state.kept:
                await self._store.hand_over(versions.get(name))
            elif name not in versions.state.dropping:
                return  # somebody else was quicker
            versions.begin_drop(name)
            if (versions.root / names.index_path(name)).exists():
                await self._forget_slots(name)
            await asyncio.to_thread(versions.finish_drop, name)
            versions.dropped(name)

    async def _forget_slots(self, name: str) -> None:
        try:
            async for line in self._child("drop", str(self._settings.path), name):
                if isinstance(line, dict):
                    raise from_wire(line)
                self._store.forget([(first, count) for first, count in line])
        except CacheopError as error:
            # Its index is damaged. Its slots stay flagged until a file is made in them: then the
            # new inode holds nothing (store.py), so nobody reads what is not there.
            log.warning("the chunks of version %s cannot be found: %s", name, error)

    async def _child(self, *arguments: str) -> AsyncIterator[Any]:
        """Run a verb of our own; its lines of JSON. The process is gone when this ends."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "cache_worker", *arguments,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, limit=LINE_BYTES,
        )  # fmt: skip
        assert process.stdout is not None
        try:
            last: Any = {}
            async for line in process.stdout:
                last = json.loads(line)
                yield last
            code = await process.wait()
            if code and "error" not in last:
                raise CacheopError(
                    f"`python -m cache_worker {arguments[0]}` ended with code {code}",
                    hint="The worker's log has its output",
                )
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                async with asyncio.timeout(CHILD_STOP_SECONDS):
                    await process.wait()


def _nobody(version: str, before: list[str]) -> None:
    del version, before
