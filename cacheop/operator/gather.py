"""Puts together what one pass over a Dataset must know, from all who watch and ask."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from cacheop.api.dataset import DatasetSpec, read_dataset
from cacheop.operator import naming
from cacheop.operator.kinds import EVENT, NAMESPACE, Ref
from cacheop.operator.observed import Observed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cacheop.operator.api import Api
    from cacheop.operator.facts import WorkerPod
    from cacheop.operator.loading import Loader
    from cacheop.operator.observe import Observer, Place
    from cacheop.operator.polling import Poller
    from cacheop.operator.settings import Settings
    from cacheop.operator.telling import Teller

NAMESPACE_SECONDS = 30.0
"""An annotation of a namespace is looked at so often."""
FAILURES_FROM_SECONDS, FAILURES_TO_SECONDS = 3.0, 60.0


class Gatherer:
    """Owns two small memories: annotations of namespaces, and why a DaemonSet made no pod."""

    def __init__(
        self,
        api: Api,
        settings: Settings,
        observer: Observer,
        poller: Poller,
        teller: Teller,
        loader: Loader,
    ) -> None:
        self._api, self._settings, self._observer = api, settings, observer
        self._poller, self._teller, self._loader = poller, teller, loader
        self._accepts: dict[str, tuple[float, frozenset[str] | None]] = {}
        self._failures: dict[Place, tuple[float, float, str]] = {}
        """Since when pods are missing, when that was looked into last, what was found."""

    async def gather(self, place: Place, document: Mapping[str, Any]) -> Observed:
        """Everything about the Dataset of `document`."""
        observer, uid = self._observer, document["metadata"]["uid"]
        dataset, _ = read_dataset({k: v for k, v in document.items() if k != "status"})
        spec = dataset.spec if dataset is not None else None
        shared = frozenset(spec.share_with.namespaces if spec else ()) - {place[0]}
        accepting = {name: await self._refusal(name, place[0]) for name in sorted(shared)}
        pods, nodes = observer.workers(place), observer.nodes
        children = observer.children(place, uid)
        daemon_set = children.get(Ref("DaemonSet", place[0], naming.object_name(place[1])))
        current = daemon_set.named if daemon_set is not None else frozenset()
        # A namespace that accepts nothing may have a claim of that name which is its own.
        homes = frozenset(
            name for name in shared if Ref("PersistentVolumeClaim", name, place[1]) in children
        )
        users = observer.users(place, homes)
        used = observer.last_use[place]
        now = time.time()
        for node in current:
            used.setdefault(node, now)
        for pod in users:
            if pod.node:
                used[pod.node] = now
        missing = (current & nodes.keys()) - {pod.node for pod in pods}
        ds_uid = daemon_set.uid if daemon_set is not None else ""
        return Observed(
            now=now,
            nodes=nodes,
            users=users,
            workers=pods,
            reports={p.uid: r for p in pods if (r := self._poller.reports.get(p.uid))},
            plugins=observer.plugins(),
            children=children,
            current=current,
            last_use=dict(used),
            drains=self._teller.drains(pods),
            wake=self._wakes(place, spec, pods),
            accepting=accepting,
            failures=await self._why_missing(place, ds_uid, missing=bool(missing)),
            look_again_at=self._look_again_at(place),
            refused=self._teller.refused(pods),
            preload=self._loader.preload(place),
            refreshed=self._teller.refreshed.get(place, ""),
        )

    def forget(self, place: Place) -> None:
        """A Dataset that is no more."""
        self._failures.pop(place, None)

    def _wakes(self, place: Place, spec: DatasetSpec | None, pods: tuple[WorkerPod, ...]) -> bool:
        if self._loader.wants_worker(place):
            return True
        preload = self._loader.preload(place)
        begun = preload is not None and preload.finished
        return bool(spec is not None and spec.preload and not begun and not pods)

    async def _refusal(self, namespace: str, home: str) -> str:
        """Why `namespace` takes no Dataset of `home`; empty when it does."""
        if not self._settings.serves(namespace):
            return "this operator does not look after that namespace"
        at, accepts = self._accepts.get(namespace, (0.0, None))
        if time.monotonic() - at > NAMESPACE_SECONDS or not at:
            found = await self._api.get(NAMESPACE, "", namespace)
            accepts = None
            if found is not None and not found["metadata"].get("deletionTimestamp"):
                notes = found["metadata"].get("annotations") or {}
                listed = notes.get(naming.ACCEPT_FROM, "")
                accepts = frozenset(name.strip() for name in listed.split(","))
            self._accepts[namespace] = (time.monotonic(), accepts)
        if accepts is None:
            return "there is no such namespace"
        if home not in accepts:
            return f"the namespace is not annotated {naming.ACCEPT_FROM}: {home}"
        return ""

    async def _why_missing(self, place: Place, uid: str, *, missing: bool) -> str:
        """What the DaemonSet controller says when it cannot make a pod (quota, LimitRange, …).

        Asked after 3 s, then less and less often: a list of events is not for free.
        """
        if not missing or not uid:
            self._failures.pop(place, None)
            return ""
        now = time.time()
        since, looked, found = self._failures.setdefault(place, (now, now, ""))
        if now < looked + _wait(since, looked):
            return found
        fields = f"involvedObject.uid={uid},reason=FailedCreate"
        newest = ("", "")
        async for page in self._api.pages(EVENT, place[0], fields=fields):
            for event in page.items:
                at = event.get("lastTimestamp") or event["metadata"].get("creationTimestamp") or ""
                newest = max(newest, (at, str(event.get("message") or "")))
        self._failures[place] = (since, now, newest[1])
        return newest[1]

    def _look_again_at(self, place: Place) -> float | None:
        if place not in self._failures:
            return None
        since, looked, _ = self._failures[place]
        return looked + _wait(since, looked)


def _wait(since: float, looked: float) -> float:
    """Twice as long each time."""
    return min(max(FAILURES_FROM_SECONDS, looked - since), FAILURES_TO_SECONDS)
