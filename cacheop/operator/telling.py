"""Tells workers what changed: a new spec, suspend, drain, refresh. Each once, in the background."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from cacheop.api.errors import CacheopError, ProtocolError, WorkerUnavailable
from cacheop.operator.asking import Worker
from cacheop.operator.placement import Drain

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from cacheop.operator.facts import WorkerPod
    from cacheop.operator.observe import Place
    from cacheop.operator.plan import Ask
    from cacheop.operator.settings import Settings

log = logging.getLogger("cacheop.operator")

SILENCE_SECONDS = 60.0
AGAIN_SECONDS = 5.0


class Teller:
    """Owns what was told to whom, and the tasks that tell. `done` is called with the Dataset."""

    def __init__(self, settings: Settings, done: Callable[[Place, str], None]) -> None:
        self._settings, self._done = settings, done
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        """By uid of the pod and operation."""
        self._drains: dict[str, tuple[str, Drain]] = {}
        """Uid of the pod -> its node, and how far it is."""
        self._spec: dict[Place, str] = {}
        self._older: dict[Place, set[str]] = defaultdict(set)
        """Pods that were there when the spec changed: they read another one."""
        self._configured: dict[str, str] = {}
        self._refused: dict[str, str] = {}
        self.refreshed: dict[Place, str] = {}

    def tell(self, ask: Ask, uid: str) -> None:
        """Have one worker do what the plan says."""
        work = {"drain": self._drain, "refresh": self._refresh}.get(ask.op, self._simply)
        self._begin(ask.pod, ask.op, work(ask, uid))

    def configure(
        self, place: Place, pods: tuple[WorkerPod, ...], document: Mapping[str, Any]
    ) -> None:
        """Have every worker take `document` for its Dataset, once for each state of it."""
        text = json.dumps(document, sort_keys=True)
        digest = hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
        if self._spec.get(place) != digest:
            if place in self._spec:
                self._older[place] = {pod.uid for pod in pods}
                for uid in self._older[place]:
                    self._refused.pop(uid, None)
            self._spec[place] = digest
        for pod in pods:
            if pod.ip and pod.running and self._configured.get(pod.uid) != digest:
                self._begin(pod, "configure", self._configure(place, pod, document, digest))

    def drains(self, pods: tuple[WorkerPod, ...]) -> dict[str, Drain]:
        """How far these pods are with handing over, by node."""
        return {
            self._drains[pod.uid][0]: self._drains[pod.uid][1]
            for pod in pods
            if pod.uid in self._drains
        }

    def refused(self, pods: tuple[WorkerPod, ...]) -> dict[str, str]:
        """Which of these take the spec only by a new start, and why."""
        return {pod.uid: self._refused[pod.uid] for pod in pods if pod.uid in self._refused}

    def forget(self, place: Place) -> None:
        """A Dataset that is no more."""
        self._spec.pop(place, None)
        self._older.pop(place, None)
        self.refreshed.pop(place, None)

    def forget_pods(self, there: set[str]) -> None:
        """Pods that are none of `there`."""
        for known in (self._drains, self._configured, self._refused):
            for uid in known.keys() - there:
                known.pop(uid, None)

    def stop_draining(self, pods: tuple[WorkerPod, ...], nodes: frozenset[str]) -> None:
        """Of these pods only those on `nodes` still hand over; forget the others' drains."""
        for pod in pods:
            if pod.uid in self._drains and pod.node not in nodes:
                self._drains.pop(pod.uid)

    def _begin(self, pod: WorkerPod, op: str, work: Coroutine[Any, Any, None]) -> None:
        key = (pod.uid, op)
        if key in self._tasks:
            work.close()
            return
        task = asyncio.create_task(work)
        self._tasks[key] = task

        def end(ended: asyncio.Task[None]) -> None:
            self._tasks.pop(key, None)
            if not ended.cancelled() and (error := ended.exception()) is not None:
                log.error("telling %s to %s", pod.name, op, exc_info=error)
            self._done((pod.namespace, pod.dataset), pod.uid)

        task.add_done_callback(end)

    def _worker(self, pod: WorkerPod, uid: str) -> Worker:
        return Worker(pod.ip, self._settings.master.control(uid))

    async def _simply(self, ask: Ask, uid: str) -> None:
        try:
            async with self._worker(ask.pod, uid) as worker:
                await worker.ask(ask.op, **ask.meta)
        except CacheopError as error:
            log.warning("%s was not told to %s: %s", ask.pod.name, ask.op, error)
            await asyncio.sleep(AGAIN_SECONDS)

    async def _refresh(self, ask: Ask, uid: str) -> None:
        place, wanted = (ask.pod.namespace, ask.pod.dataset), str(ask.meta["requested"])
        try:
            async with self._worker(ask.pod, uid) as worker:
                await worker.ask("refresh", silence_seconds=SILENCE_SECONDS)
        except WorkerUnavailable as error:
            log.warning("%s was not told to refresh: %s", ask.pod.name, error)
            await asyncio.sleep(AGAIN_SECONDS)
            return
        except CacheopError as error:
            # It tried, and says in its status why it could not: asking again is the person's turn.
            log.warning("%s/%s: refresh failed: %s", *place, error)
        self.refreshed[place] = wanted

    async def _drain(self, ask: Ask, uid: str) -> None:
        pod, began = ask.pod, time.time()
        self._drains[pod.uid] = (pod.node, Drain(began))
        try:
            async with self._worker(pod, uid) as worker:
                told = await worker.ask("drain", silence_seconds=SILENCE_SECONDS, **ask.meta)
            log.info("%s handed over: %s", pod.name, told)
        except CacheopError as error:
            log.warning("%s did not hand over: %s", pod.name, error)
        if pod.uid in self._drains:
            self._drains[pod.uid] = (pod.node, Drain(began, ended=True))

    async def _configure(
        self, place: Place, pod: WorkerPod, document: Mapping[str, Any], digest: str
    ) -> None:
        try:
            async with self._worker(pod, document["metadata"]["uid"]) as worker:
                await worker.ask("configure", dataset=dict(document))
        except WorkerUnavailable:
            await asyncio.sleep(AGAIN_SECONDS)
            return
        except CacheopError as error:
            # A pod that was made after the change has read it at its start, whatever it says now.
            if pod.uid in self._older.get(place, ()):
                old = isinstance(error, ProtocolError)
                self._refused[pod.uid] = "it is of an older release" if old else str(error)
        else:
            self._refused.pop(pod.uid, None)
        self._configured[pod.uid] = digest
