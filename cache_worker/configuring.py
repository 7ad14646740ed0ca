"""A worker's spec changes while it runs: by `configure`, by its ConfigMap, by the node's budget."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any

from cache_worker import pod
from cache_worker.changes import compare, policy_name, quota_bytes, the_tier
from cache_worker.eviction import policy_named
from cacheop.api import names
from cacheop.api.dataset import parse_dataset
from cacheop.api.errors import CacheopError

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

    from cache_worker.space import Space
    from cache_worker.worker import Worker
    from cacheop.api.dataset import Dataset

log = logging.getLogger("cacheop.worker")

LOOK_SECONDS = 2.0


def read_share(root: Path) -> int | None:
    """The Dataset's share of the node's disk, if the node plugin has told one."""
    try:
        found = json.loads((root / names.BUDGET_FILE).read_text())["quota_bytes"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, int) and found > 0 else None


class Configuring:
    """Runs on the worker's loop."""

    def __init__(self, worker: Worker, disk_bytes: int) -> None:
        self._worker = worker
        self._disk_bytes = disk_bytes
        self._seen: object = None

    def tasks(self) -> list[Coroutine[Any, Any, None]]:
        """What runs in the background."""
        return [self._watch()]

    def fit(self, space: Space) -> None:
        """Set quota and marks as the spec and the budget say; eviction follows within a second."""
        spec, share = self._worker.settings.dataset.spec, read_share(self._worker.settings.root)
        space.quota_bytes = quota_bytes(spec, self._disk_bytes, share)
        tier = the_tier(spec)
        if tier is not None:
            space.high, space.low = tier.high, tier.low

    def configure(self, document: dict[str, Any]) -> list[str]:
        """As `apply`, for a document of the operator's or a user's; raises KeyError besides."""
        is_pod = self._worker.settings.follow is not None
        return self.apply(parse_dataset(pod.document_of(document) if is_pod else document))

    def apply(self, dataset: Dataset) -> list[str]:
        """Serve by this spec from now on; the fields that changed. UserError: all is as before."""
        worker = self._worker
        old = worker.settings.dataset
        change = compare(old, dataset)
        policy = policy_named(policy_name(dataset.spec))
        if not change.fields:
            return []
        worker.settings.replace_dataset(dataset)
        self.fit(worker.store.space)
        if policy_name(dataset.spec) != policy_name(old.spec):
            worker.store.use(policy)
            worker.reading.use(policy)
        if old.spec.suspend != dataset.spec.suspend:
            worker.suspend(dataset.spec.suspend)
        if change.reopens:
            worker.reopen_origins(old.spec.mounts)
        if "version" in change.fields:
            worker.indexing.choose_version()
        worker.schedule.changed(refresh=change.relists)
        if change.preloads:
            worker.spawn(worker.schedule.preload())
        log.info("the spec changed: %s", ", ".join(change.fields))
        return list(change.fields)

    async def _watch(self) -> None:
        """Take up what the operator and the node plugin write."""
        settings = self._worker.settings
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.fit(self._worker.store.space)
            if settings.follow is None:
                continue
            found = pod.fingerprint(settings.follow)
            if found == self._seen:
                continue
            self._seen = found
            try:
                config = pod.rewrite(settings.path, settings.follow)
                self.apply(parse_dataset(config["dataset"]))
            except CacheopError as error:
                log.warning("the changed spec is not taken up: %s", error)
