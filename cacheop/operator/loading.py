"""Loads that run: every ready worker of a Dataset loads its share, told as one progress."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from cacheop.api.errors import CacheopError
from cacheop.cli.progress import merge_loads
from cacheop.operator.asking import Worker
from cacheop.operator.load_plan import Run
from cacheop.operator.observed import Preload

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cacheop.api.dataset import PathTarget
    from cacheop.operator.facts import WorkerPod
    from cacheop.operator.observe import Place
    from cacheop.operator.settings import Settings

log = logging.getLogger("cacheop.operator")

SILENCE_SECONDS = 60.0
TOLD_SECONDS = 2.0
"""How often progress is told."""
AGAIN_SECONDS = 30.0
PRELOAD = "preload"

Key = tuple[str, str, str]
"""Namespace, name of the Dataset, and the uid of the DataLoad or `preload`."""


def paths_of(targets: Sequence[PathTarget]) -> list[str]:
    """As workers want them; none at all means everything."""
    paths = [target.path.strip("/") for target in targets]
    return paths if all(paths) else []


class Loader:
    """Owns the tasks of all loads. `told` is called when one has progressed or ended."""

    def __init__(self, settings: Settings, told: Callable[[Key], None]) -> None:
        self._settings, self._told = settings, told
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._runs: dict[Key, Run] = {}
        self._wanting: set[Key] = set()

    def run_of(self, key: Key) -> Run | None:
        """How far a load is; None when none was begun."""
        return self._runs.get(key)

    def start(
        self,
        key: Key,
        token: str,
        pods: Sequence[WorkerPod],
        version: str,
        request: Mapping[str, Any],
    ) -> None:
        """Begin; one that runs already is begun anew."""
        self.stop(key)
        self._runs[key] = Run(version, {})
        work = self._load(key, token, pods, {"version": version, "share": True, **request})
        self._tasks[key] = asyncio.create_task(work)

    def stop(self, key: Key) -> None:
        """Break off and forget; workers stop when the connection ends."""
        task = self._tasks.pop(key, None)
        if task is not None:
            task.cancel()
        self._runs.pop(key, None)

    def want_worker(self, key: Key, *, wanted: bool) -> None:
        """A load keeps its Dataset from idling."""
        if wanted:
            self._wanting.add(key)
        else:
            self._wanting.discard(key)

    def wants_worker(self, place: Place) -> bool:
        """Whether some load does."""
        return any(key[:2] == place for key in self._wanting)

    def preload(self, place: Place) -> Preload | None:
        """How far spec.preload of a Dataset is."""
        run = self._runs.get((*place, PRELOAD))
        if run is None:
            return None
        done, total = run.progress.get("bytes") or 0, run.progress.get("bytes_total") or 0
        complete = run.ended and not run.error and run.progress.get("phase") == "Complete"
        failed = ""
        if run.ended and not complete:
            failed = run.error or f"{run.progress.get('failed_files')} files could not be loaded"
        part = 100 if complete else int(100 * done / total) if total else 0
        return Preload(run.version, part, complete, failed)

    def preload_is_due(self, place: Place, version: str) -> bool:
        """Whether the paths of spec.preload are to be loaded now."""
        run = self._runs.get((*place, PRELOAD))
        if run is None or run.version != version:
            return True
        complete = not run.error and run.progress.get("phase") == "Complete"
        return run.ended and not complete and time.time() - run.ended_at > AGAIN_SECONDS

    def forget(self, place: Place) -> None:
        """A Dataset that is no more."""
        for key in [key for key in {*self._runs, *self._wanting} if key[:2] == place]:
            self.stop(key)
            self._wanting.discard(key)

    async def _load(
        self, key: Key, token: str, pods: Sequence[WorkerPod], request: dict[str, Any]
    ) -> None:
        latest: list[dict[str, Any]] = [{} for _ in pods]
        errors: list[str] = []
        told_at = 0.0

        def tell(number: int, event: dict[str, Any]) -> None:
            nonlocal told_at
            latest[number] = event
            if time.monotonic() - told_at > TOLD_SECONDS:
                told_at = time.monotonic()
                self._runs[key] = Run(request["version"], merge_loads(latest))
                self._told(key)

        async def one(number: int, pod: WorkerPod) -> None:
            try:
                async with Worker(pod.ip, token) as worker:
                    latest[number] = await worker.ask(
                        "load",
                        on_event=lambda event: tell(number, event),
                        silence_seconds=SILENCE_SECONDS,
                        **request,
                    )
                merge_loads(latest)
            except Exception as error:  # noqa: BLE001 - one must not end what the others tell
                known = isinstance(error, CacheopError)
                errors.append(f"{pod.node}: {error if known else 'it answers strangely'}")
                latest[number] = {}

        async with asyncio.TaskGroup() as group:
            for number, pod in enumerate(pods):
                group.create_task(one(number, pod))
        self._runs[key] = Run(
            request["version"],
            merge_loads(latest),
            ended=True,
            error="; ".join(sorted(errors))[:512],
            ended_at=time.time(),
        )
        self._told(key)
