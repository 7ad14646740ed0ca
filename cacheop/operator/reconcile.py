"""One pass over a Dataset: observe -> plan -> apply, with one status write at the end."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from cacheop.operator import naming
from cacheop.operator.api import ApiError
from cacheop.operator.kinds import DATASET, POD
from cacheop.operator.loading import PRELOAD, paths_of
from cacheop.operator.manifests.config import dataset_document
from cacheop.operator.plan import plan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cacheop.operator.api import Api
    from cacheop.operator.apply import Applier
    from cacheop.operator.events import Poster
    from cacheop.operator.gather import Gatherer
    from cacheop.operator.loading import Loader
    from cacheop.operator.observe import Observer, Place
    from cacheop.operator.observed import Observed
    from cacheop.operator.plan import Plan
    from cacheop.operator.settings import Settings
    from cacheop.operator.telling import Teller

NUMBERS_SECONDS = 10.0
"""Where only numbers differ, status is written so often at most."""
NODES_SECONDS = 30.0
TAKEN_SECONDS = 15.0
"""A name that is somebody else's object's is tried again so often."""


class Written(NamedTuple):
    """A status as we wrote it, and as the API server keeps it: with its defaults."""

    at: float
    status: Mapping[str, Any]
    kept: Mapping[str, Any]


class Reconciler:
    """Owns when which status was written."""

    def __init__(
        self,
        api: Api,
        settings: Settings,
        observer: Observer,
        gatherer: Gatherer,
        applier: Applier,
        teller: Teller,
        loader: Loader,
        poster: Poster,
    ) -> None:
        self._api, self._settings, self._observer = api, settings, observer
        self._gatherer, self._applier, self._teller = gatherer, applier, teller
        self._loader, self._poster = loader, poster
        self._written: dict[Place, Written] = {}
        self._uids: dict[Place, str] = {}

    async def dataset(self, place: Place) -> float | None:
        """One pass; the seconds until the next one is due."""
        document = self._observer.datasets.get(place)
        if document is None:
            self._forget(place)
            return None
        uid = document["metadata"]["uid"]
        if self._uids.setdefault(place, uid) != uid:  # another one of the same name
            self._forget(place)
            self._observer.saw_dataset(document)
            self._uids[place] = uid
        seen = await self._gatherer.gather(place, document)
        wanted = plan(document, seen, self._settings)
        finalizers = document["metadata"].get("finalizers") or ()
        if wanted.finalizer and naming.FINALIZER not in finalizers:
            if document["metadata"].get("deletionTimestamp"):
                return None  # it goes without us
            await self._set_finalizer(document, there=True)
            document = self._observer.datasets.get(place, document)
        taken, errors = await self._applier.apply(wanted.objects, uid)
        if taken or errors:
            seen = dataclasses.replace(seen, taken=taken, errors=errors)
            wanted = plan(document, seen, self._settings)
        await self._applier.remove(wanted)
        for pod in wanted.replace:
            await self._api.delete(POD, pod.namespace, pod.name, pod.uid)
        self._tell(place, seen, wanted)
        await self._poster.post(wanted.events)
        if not wanted.finalizer and naming.FINALIZER in finalizers:
            await self._set_finalizer(document, there=False)
            return None
        late = await self._write_status(place, document, wanted)
        due = [late] if late else []
        if wanted.again_at is not None:
            due.append(max(0.1, wanted.again_at - time.time()))
        if taken or errors:
            due.append(TAKEN_SECONDS)
        return min(due, default=None)

    def _tell(self, place: Place, seen: Observed, wanted: Plan) -> None:
        """What workers are to do; spec.preload among it."""
        uid = self._uids[place]
        for ask in wanted.asks:
            self._teller.tell(ask, uid)
        if wanted.placement is None or wanted.owner is None:
            return
        self._teller.stop_draining(seen.workers, wanted.placement.drain)
        spec = wanted.owner.spec
        ready = tuple(pod for pod in seen.workers if pod.ready and not pod.deleting)
        self._teller.configure(place, seen.workers, dataset_document(wanted.owner))
        version = str(wanted.status.get("version") or "")
        wants = spec.preload and not spec.suspend
        if wants and ready and version and self._loader.preload_is_due(place, version):
            request = {"paths": paths_of(spec.preload), "replicas": 1}
            token = self._settings.master.control(uid)
            self._loader.start((*place, PRELOAD), token, ready, version, request)

    async def _set_finalizer(self, document: Mapping[str, Any], *, there: bool) -> None:
        metadata = document["metadata"]
        wanted = {
            "apiVersion": document["apiVersion"],
            "kind": document["kind"],
            "metadata": {
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],  # never of another one that has the name by now
                "finalizers": [naming.FINALIZER] if there else [],
            },
        }
        try:
            done = await self._api.apply(DATASET, wanted)
        except ApiError as error:
            if error.status not in (404, 409, 422):
                raise
            if there:
                raise
        else:
            self._observer.wrote_dataset(done)

    async def _write_status(
        self, place: Place, document: Mapping[str, Any], wanted: Plan
    ) -> float | None:
        """Write it if it is another one; the seconds after which that is due that must wait."""
        status, now = dict(wanted.status), time.monotonic()
        known = self._written.get(place)
        if known is not None and document.get("status") == known.kept:
            if status == known.status:
                return None
            wait = _patience(status, known.status) - (now - known.at)
            if wait > 0:
                return wait
        metadata = document["metadata"]
        body = {
            "apiVersion": document["apiVersion"],
            "kind": document["kind"],
            "metadata": {
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
            },
            "status": status,
        }
        try:
            done = await self._api.apply(DATASET, body, "status")
        except ApiError as error:
            if error.status in (404, 409):
                return None  # it went, or is another one by now: an event tells
            raise
        self._written[place] = Written(now, status, done.get("status") or {})
        self._observer.wrote_dataset(done)
        return None

    def _forget(self, place: Place) -> None:
        self._written.pop(place, None)
        self._applier.forget(self._uids.pop(place, ""))
        self._observer.forget(place)
        self._gatherer.forget(place)
        self._teller.forget(place)
        self._loader.forget(place)


def _patience(status: Mapping[str, Any], before: Mapping[str, Any]) -> float:
    """How long after the last write this difference may wait."""
    different = {key for key in {*status, *before} if status.get(key) != before.get(key)}
    if different <= {"nodes"}:
        return NODES_SECONDS
    return NUMBERS_SECONDS if different <= {"nodes", "cacheStates"} else 0.0
