"""One pass over a DataLoad: what is asked for -> plan -> start, stop, status, delete."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from cacheop.api.dataload import read_dataload
from cacheop.operator.api import ApiError
from cacheop.operator.conditions import condition, stamped
from cacheop.operator.kinds import DATALOAD
from cacheop.operator.load_plan import LoadPlan, Moment, Target, plan_load
from cacheop.operator.loading import paths_of
from cacheop.operator.observed import rfc3339, seconds_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cacheop.api.dataload import DataLoadSpec
    from cacheop.operator.api import Api
    from cacheop.operator.loading import Key, Loader
    from cacheop.operator.observe import Observer, Place
    from cacheop.operator.settings import Settings


class LoadReconciler:
    """Owns which load a DataLoad began, so that it can end it when the object is gone."""

    def __init__(
        self,
        api: Api,
        settings: Settings,
        observer: Observer,
        loader: Loader,
        concerns: Callable[[Place], None],
    ) -> None:
        self._api, self._settings, self._observer = api, settings, observer
        self._loader, self._concerns = loader, concerns
        self._keys: dict[Place, Key] = {}

    def place_of(self, uid: str) -> Place | None:
        """The DataLoad with that uid."""
        return next((place for place, key in self._keys.items() if key[2] == uid), None)

    async def load(self, place: Place) -> float | None:
        """One pass; the seconds until the next one is due."""
        document = self._observer.loads.get(place)
        known = self._keys.get(place)
        if known is not None and (document is None or document["metadata"]["uid"] != known[2]):
            self._end(place, known)
        if document is None or document["metadata"].get("deletionTimestamp"):
            return None
        metadata = document["metadata"]
        bare = {key: value for key, value in document.items() if key != "status"}
        load, problems = read_dataload(bare)
        at = Moment(
            now=time.time(),
            created_at=seconds_of(metadata.get("creationTimestamp")) or time.time(),
            generation=metadata.get("generation", 0),
            before=document.get("status") or {},
        )
        if load is None:
            why = "; ".join(str(problem) for problem in problems)[:1000]
            await self._write(document, _invalid(at, why))
            return None
        key = (place[0], load.spec.dataset, metadata["uid"])
        self._keys[place] = key
        wanted = plan_load(
            load.spec, at, self._target(place[0], load.spec), self._loader.run_of(key)
        )
        self._act(key, load.spec, wanted)
        if wanted.action == "delete":
            await self._api.delete(DATALOAD, *place, metadata["uid"])
            return None
        await self._write(document, wanted.status)
        return None if wanted.again_at is None else max(0.5, wanted.again_at - time.time())

    def _target(self, namespace: str, spec: DataLoadSpec) -> Target:
        document = self._observer.datasets.get((namespace, spec.dataset))
        if document is None:
            return Target(missing=f"there is no Dataset {spec.dataset} in namespace {namespace}")
        if document["metadata"].get("deletionTimestamp"):
            return Target(missing=f"Dataset {spec.dataset} is being deleted")
        version = spec.version or str((document.get("status") or {}).get("version") or "")
        return Target(version, len(self._ready((namespace, spec.dataset))))

    def _ready(self, place: Place) -> list[Any]:
        return [p for p in self._observer.workers(place) if p.ready and p.ip and not p.deleting]

    def _act(self, key: Key, spec: DataLoadSpec, wanted: LoadPlan) -> None:
        before = self._loader.wants_worker(key[:2])
        self._loader.want_worker(key, wanted=wanted.wants_worker)
        if before != self._loader.wants_worker(key[:2]):
            self._concerns(key[:2])
        if wanted.action == "stop":
            self._loader.stop(key)
        if wanted.action != "start":
            return
        document = self._observer.datasets[key[:2]]
        pods = self._ready(key[:2])
        request: dict[str, Any] = {
            "paths": paths_of(spec.target),
            "replicas": spec.replicas,
        }
        if spec.max_origin_bytes_per_second:
            share = max(1, spec.max_origin_bytes_per_second // len(pods))
            request["max_origin_bytes_per_second"] = share
        token = self._settings.master.control(document["metadata"]["uid"])
        self._loader.start(key, token, pods, str(wanted.status["version"]), request)

    def _end(self, place: Place, key: Key) -> None:
        self._loader.stop(key)
        self._loader.want_worker(key, wanted=False)
        self._keys.pop(place, None)

    async def _write(self, document: Mapping[str, Any], status: Mapping[str, Any]) -> None:
        if _same(status, document.get("status") or {}):
            return
        metadata = document["metadata"]
        body = {
            "apiVersion": document["apiVersion"],
            "kind": document["kind"],
            "metadata": {key: metadata[key] for key in ("name", "namespace", "uid")},
            "status": dict(status),
        }
        try:
            self._observer.wrote_load(await self._api.apply(DATALOAD, body, "status"))
        except ApiError as error:
            if error.status not in (404, 409):
                raise


def _same(status: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """Whether nothing is to be written; what the API server filled in does not count."""
    empty: tuple[Any, ...] = (0, "", [], None)
    keys = {key for key in {*status, *before} if (status.get(key) or before.get(key)) not in empty}
    return all(_bare(status.get(key)) == _bare(before.get(key)) for key in keys)


def _bare(value: Any) -> Any:
    if isinstance(value, list):
        return [_bare(item) for item in value]
    if isinstance(value, dict):
        return {key: item for key, item in value.items() if item not in ("", None)}
    return value or None


def _invalid(at: Moment, why: str) -> dict[str, Any]:
    conditions = [condition("Complete", False, "InvalidSpec", why)]
    before = at.before.get("conditions") or ()
    return {
        "phase": "Failed",
        "conditions": stamped(conditions, before, at.generation, rfc3339(at.now)),
        "observedGeneration": at.generation,
    }
