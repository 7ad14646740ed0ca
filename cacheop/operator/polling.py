"""Asks every running worker for its status, again and again, a few at a time."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from cacheop.api.errors import CacheopError
from cacheop.operator.asking import Worker
from cacheop.operator.reports import Report, read_report

if TYPE_CHECKING:
    from collections.abc import Callable

    from cacheop.operator.facts import WorkerPod
    from cacheop.operator.observe import Observer, Place
    from cacheop.operator.settings import Settings

log = logging.getLogger("cacheop.operator")

AT_ONCE = 32
TICK_SECONDS = 0.5
SOON_SECONDS = 2.0
"""While a worker is not ready yet, so often."""
FORGET_SECONDS = 30.0
"""A worker that says nothing for so long has said nothing."""


class Poller:
    """Owns `reports`, by the uid of the pod. `changed` is told which Dataset's are different."""

    def __init__(
        self, observer: Observer, settings: Settings, changed: Callable[[Place], None]
    ) -> None:
        self._observer, self._settings, self._changed = observer, settings, changed
        self.reports: dict[str, Report] = {}
        self._heard: dict[str, float] = {}
        self._due: dict[str, float] = {}
        self._asked: set[str] = set()
        self._was_ready: set[str] = set()
        """Pods that were ready when they were asked last."""

    async def run(self) -> None:
        """Until cancelled."""
        turns = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as group:
            while True:
                now = time.monotonic()
                there = set()
                for pod in self._observer.all_workers():
                    there.add(pod.uid)
                    due = self._due.get(pod.uid, 0.0) <= now or (
                        pod.ready and pod.uid not in self._was_ready
                    )
                    if pod.ip and pod.running and due and pod.uid not in self._asked:
                        self._asked.add(pod.uid)
                        group.create_task(self._ask(pod, turns))
                self._forget(there)
                await asyncio.sleep(TICK_SECONDS)

    def soon(self, uid: str) -> None:
        """Ask this worker again at once: something was changed at it."""
        self._due[uid] = 0.0

    async def _ask(self, pod: WorkerPod, turns: asyncio.Semaphore) -> None:
        place = (pod.namespace, pod.dataset)
        metadata = (self._observer.datasets.get(place) or {}).get("metadata") or {}
        before, now = self.reports.get(pod.uid), time.monotonic()
        if pod.ready:
            self._was_ready.add(pod.uid)
        else:
            self._was_ready.discard(pod.uid)
        try:
            if metadata:
                token = self._settings.master.control(metadata["uid"])
                async with turns, Worker(pod.ip, token) as worker:
                    self.reports[pod.uid] = read_report(await worker.ask("status"))
                self._heard[pod.uid] = now
        except Exception as error:  # noqa: BLE001 - whatever a pod says, it harms nobody else
            if not isinstance(error, CacheopError):
                log.warning("%s/%s answers strangely: %r", pod.namespace, pod.name, error)
            if now - self._heard.get(pod.uid, 0.0) > FORGET_SECONDS:
                self.reports.pop(pod.uid, None)
        finally:
            self._asked.discard(pod.uid)
        after = self.reports.get(pod.uid)
        settled = pod.ready and after is not None and after.phase not in ("Pending", "Indexing")
        seconds = self._settings.poll_seconds if settled else SOON_SECONDS
        self._due[pod.uid] = now + min(seconds, self._settings.poll_seconds)
        if before != after:
            self._changed(place)

    def _forget(self, there: set[str]) -> None:
        for uid in [uid for uid in self._due if uid not in there]:
            for known in (self.reports, self._heard, self._due):
                known.pop(uid, None)
            self._was_ready.discard(uid)
