"""What the spec asks for by itself: the first version, new ones by spec.refresh, spec.preload."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from cacheop.api.errors import CacheopError

if TYPE_CHECKING:
    from cache_worker.worker import Worker

log = logging.getLogger("cacheop.worker")

RETRY_SECONDS = 5.0


class Schedule:
    """Runs on the worker's loop."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._changed = asyncio.Event()
        self._is_wanted = False

    def changed(self, *, refresh: bool) -> None:
        """The spec is another one, and may want a new version now."""
        self._is_wanted |= refresh
        self._changed.set()

    async def run(self) -> None:
        """Until cancelled."""
        worker = self._worker
        if worker.clustered is not None:
            await worker.clustered.following.has_version()
        elif worker.versions.current() is None and not worker.cache.suspended:
            await self._refresh()
        worker.spawn(self.preload())
        while True:
            self._changed.clear()
            if self._is_wanted:
                self._is_wanted = False
                await self._refresh_if_ours()
                continue
            interval = worker.settings.dataset.spec.refresh.interval_seconds
            if worker.versions.current() is None:  # the first listing failed: it may be mended
                interval = min(interval or RETRY_SECONDS, RETRY_SECONDS)
            try:
                async with asyncio.timeout(interval):
                    await self._changed.wait()
            except TimeoutError:
                await self._refresh_if_ours()

    async def preload(self) -> None:
        """Fill what spec.preload names."""
        worker = self._worker
        paths = [target.path for target in worker.settings.dataset.spec.preload]
        version = worker.versions.current()
        if version is None or not paths:
            return
        found = [version.index.resolve(path) for path in paths]
        rows = [level for row in found if row is not None for level in version.index.subtree(row)]
        with version.used():
            result = await worker.load(version, rows, replicas=1).run()
        log.info("preload: %s", result)

    async def _refresh_if_ours(self) -> None:
        worker = self._worker
        lists = worker.clustered is None or worker.clustered.cluster.lists()
        if lists and not worker.cache.suspended:
            await self._refresh()

    async def _refresh(self) -> None:
        try:
            await self._worker.refresh()
        except CacheopError as error:
            log.error("indexing failed: %s", error)  # noqa: TRY400 - the message says it all
