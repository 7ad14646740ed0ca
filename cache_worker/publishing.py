"""What the holder asks before it mounts: which version, and whether all of it is here."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import xxhash

from cache_worker.whole_tree import make_whole
from cacheop.api import names
from cacheop.api.errors import CacheopError, WorkerUnavailable
from cacheop.api.table import PRESENT, SUSPECT

if TYPE_CHECKING:
    from collections.abc import Callable

    from cache_worker.cache import Cache
    from cache_worker.cluster.clustered import Clustered
    from cache_worker.indexing import Indexing
    from cache_worker.settings import Settings
    from cache_worker.versions import Version

POLL_SECONDS = 0.05
VERIFY_SECONDS = 5.0
"""How long a version that is being verified after an unclean stop is waited for."""
PROOF_SECONDS = 60.0
"""The holder asks again under its lock: a tree just seen whole is not walked once more."""


class Publishing:
    """Answers `publish`. Runs on the worker's loop."""

    def __init__(
        self,
        settings: Settings,
        cache: Cache,
        indexing: Indexing,
        is_verifying: Callable[[], bool],
        clustered: Clustered | None = None,
    ) -> None:
        self._clustered = clustered
        self._settings, self._cache, self._indexing = settings, cache, indexing
        self._store = cache.store
        self._is_verifying = is_verifying
        self._proofs: dict[str, tuple[int, float]] = {}
        """By version: the chunks' state when its tree was seen whole, and when (monotonic)."""

    async def publish(self, name: str) -> dict[str, Any]:
        """See docs/protocol.md. Waits until there is such a version; raises CacheopError."""
        if self._clustered is not None and not name:
            grace = self._settings.dataset.spec.mount.grace_seconds
            await self._clustered.following.caught_up(grace)
        version = await self._version(name)
        options = self._settings.dataset.spec.mount
        with version.used():
            complete = await self._is_complete(version)
            cached, total = self._store.cached_bytes(version), version.index.bytes
            return {
                "version": version.name,
                "rows": version.index.rows,
                "bytes": total,
                "complete": complete,
                "cached_percentage": round(100 * cached / total, 2) if total else 100.0,
                "mode": options.mode,
                "grace_seconds": options.grace_seconds,
                "data": names.data_path(version.name),
            }

    async def _version(self, name: str) -> Version:
        """The version to mount, once it is here."""
        versions, indexing = self._store.versions, self._indexing
        deadline = time.monotonic() + self._settings.dataset.spec.mount.grace_seconds
        while True:
            if name in versions.state.kept or (not name and versions.current()):
                return versions.get(name)
            if not indexing.running:
                if indexing.error is not None:
                    raise indexing.error
                if name and versions.state.kept:  # others are here, and this one is not coming
                    return versions.get(name)
            if time.monotonic() > deadline:
                raise WorkerUnavailable(
                    f"there is no version of {self._settings.name} yet",
                    hint="`cacheop status` shows how far indexing is",
                )
            await asyncio.sleep(POLL_SECONDS)

    async def _is_complete(self, version: Version) -> bool:
        """Whether every chunk is here and good, and the tree of the version whole."""
        if not await self._all_present(version):
            return False
        before = self._fingerprint(version)
        proof, seen = self._proofs.get(version.name, (None, 0.0))
        if proof == before and time.monotonic() - seen < PROOF_SECONDS:
            return True
        if not await make_whole(self._store, version):
            return False
        if self._fingerprint(version) != before:  # something was dropped while we looked
            return False
        self._proofs[version.name] = (before, time.monotonic())
        return True

    async def _all_present(self, version: Version) -> bool:
        deadline = time.monotonic() + VERIFY_SECONDS
        while True:
            lacking, suspects = self._count(version)
            if not lacking and not suspects:
                return True
            if lacking:
                return await self._fill_empty_files(version, lacking)
            if not self._is_verifying() or time.monotonic() > deadline:
                return False
            await asyncio.sleep(POLL_SECONDS)

    def _count(self, version: Version) -> tuple[int, int]:
        """(chunks that are not here, chunks to be verified)."""
        lacking = suspects = 0
        for first, count in version.slot_runs():
            states = self._store.table.states(first, count)
            here = states.count(SUSPECT)
            suspects += here
            lacking += count - here - states.count(PRESENT)
        return lacking, suspects

    async def _fill_empty_files(self, version: Version, lacking: int) -> bool:
        """Make the files of no bytes, if nothing else lacks: no origin is asked for them."""
        table = self._store.table
        for first, count in version.slot_runs():
            states = table.states(first, count)
            for slot in (first + i for i, state in enumerate(states) if state != PRESENT):
                row = version.row_at(slot)
                if row is None or version.index.size(row) or not lacking:
                    return False
                lacking -= 1
                try:
                    if await self._cache.ensure(version, row, 0) is not True:
                        return False
                except CacheopError:  # suspended
                    return False
        return self._count(version) == (0, 0)

    def _fingerprint(self, version: Version) -> int:
        """Of the state and generation of every chunk: the same again, so nothing was dropped."""
        found = xxhash.xxh3_64()
        for first, count in version.slot_runs():
            found.update(self._store.table.state_bytes(first, count))
        return found.intdigest()
