"""What the watches see, indexed by Dataset; says which Datasets a change concerns."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from cacheop.operator import kinds, naming
from cacheop.operator.facts import (
    Node,
    PluginPod,
    UserPod,
    WorkerPod,
    fingerprint,
    read_node,
    read_pod,
)
from cacheop.operator.kinds import Kind, Ref, ref_of
from cacheop.operator.manifests.workers import named_nodes
from cacheop.operator.observed import Child
from cacheop.operator.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from cacheop.operator.api import Api
    from cacheop.operator.settings import Settings

Place = tuple[str, str]
"""Namespace and name of a Dataset."""
Pod = UserPod | WorkerPod | PluginPod


class Observer:
    """Owns the watches.

    `concerns` is called with each Dataset that must be looked at again, `shares` with a namespace
    in which a shared claim came or went.
    """

    def __init__(
        self,
        api: Api,
        settings: Settings,
        concerns: Callable[[Place], None],
        shares: Callable[[str], None],
    ) -> None:
        self._settings, self._concerns, self._shares = settings, concerns, shares
        self.datasets: dict[Place, Mapping[str, Any]] = {}
        """Documents, as handlers.py is told of them."""
        self.loads: dict[Place, Mapping[str, Any]] = {}
        self.last_use: dict[Place, dict[str, float]] = defaultdict(dict)
        self._users: dict[Place, dict[str, UserPod]] = defaultdict(dict)
        """By (namespace, name of claim or inline Dataset), then uid."""
        self._workers: dict[Place, dict[str, WorkerPod]] = defaultdict(dict)
        self._plugins: dict[str, PluginPod] = {}
        self._children: dict[Place, dict[Ref, Child]] = defaultdict(dict)
        self._expected: dict[Ref, str] = {}
        """Fingerprints that our own calls lead to."""
        scope = settings.namespaces
        pods = (*scope, settings.namespace) if scope else ()
        self._nodes: Watch[Node] = Watch(api, kinds.NODE, read_node, self._node_changed)
        self._pods: Watch[Pod] = Watch(
            api,
            kinds.POD,
            lambda document: read_pod(document, settings.namespace),
            self._pod_changed,
            namespaces=dict.fromkeys(pods),
        )
        self._child_watches: dict[str, Watch[tuple[Place, Child]]] = {
            kind.kind: self._child_watch(api, kind, scope) for kind in kinds.CHILDREN
        }

    @property
    def _watches(self) -> list[Watch[Any]]:
        return [self._nodes, self._pods, *self._child_watches.values()]

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for watch in self._watches:
                group.create_task(watch.run())

    async def listed(self) -> None:
        """When everything that is there has been seen once."""
        for watch in self._watches:
            await watch.listed.wait()

    @property
    def nodes(self) -> Mapping[str, Node]:
        """All nodes by name."""
        return {node.name: node for node in self._nodes.items.values()}

    def plugins(self) -> frozenset[str]:
        """Nodes whose node plugin is ready."""
        return frozenset(pod.node for pod in self._plugins.values() if pod.ready)

    def workers(self, place: Place) -> tuple[WorkerPod, ...]:
        """The worker pods of a Dataset."""
        return tuple(sorted(self._workers.get(place, {}).values(), key=lambda pod: pod.name))

    def all_workers(self) -> Iterable[WorkerPod]:
        """Those of all Datasets."""
        return [pod for pods in self._workers.values() for pod in pods.values()]

    def users(self, place: Place, shared_with: frozenset[str]) -> tuple[UserPod, ...]:
        """The pods that use a Dataset."""
        namespace, name = place
        found = {
            uid: pod
            for home in (namespace, *shared_with)
            for uid, pod in self._users.get((home, name), {}).items()
            if pod.uses(namespace, name, shared_with)
        }
        return tuple(sorted(found.values(), key=lambda pod: (pod.namespace, pod.name)))

    def children(self, place: Place, uid: str) -> Mapping[Ref, Child]:
        """The objects of a Dataset."""
        return {
            ref: child
            for ref, child in self._children.get(place, {}).items()
            if child.dataset_uid == uid
        }

    def child(self, ref: Ref) -> Child | None:
        """An object with our labels, whosesoever."""
        found = self._child_watches[ref.kind].items.get((ref.namespace, ref.name))
        return found[1] if found is not None else None

    def learn(self, document: Mapping[str, Any]) -> None:
        """An object as our own call made it: no reason to look again."""
        ref = ref_of(document)
        self._expected[ref] = fingerprint(document)
        self._child_watches[ref.kind].learn(document)

    def saw_dataset(self, document: Mapping[str, Any], *, gone: bool = False) -> None:
        """A Dataset as it is now; an older state than what is known is passed over."""
        _saw(self.datasets, document, gone=gone)

    def wrote_dataset(self, document: Mapping[str, Any]) -> None:
        """The same, as our own call made it: does not bring back one that is gone."""
        if _place(document) in self.datasets:
            _saw(self.datasets, document)

    def saw_load(self, document: Mapping[str, Any], *, gone: bool = False) -> None:
        """A DataLoad as it is now."""
        _saw(self.loads, document, gone=gone)

    def wrote_load(self, document: Mapping[str, Any]) -> None:
        """See wrote_dataset."""
        if _place(document) in self.loads:
            _saw(self.loads, document)

    def loads_of(self, place: Place) -> list[Place]:
        """The DataLoads of a Dataset."""
        return [
            where
            for where, document in self.loads.items()
            if where[0] == place[0] and (document.get("spec") or {}).get("dataset") == place[1]
        ]

    def namespaces(self) -> set[str]:
        """Where there are Datasets, or they are shared with."""
        shared = (
            (document.get("spec") or {}).get("shareWith", {}).get("namespaces") or ()
            for document in self.datasets.values()
        )
        return {place[0] for place in self.datasets} | {name for names in shared for name in names}

    def forget(self, place: Place) -> None:
        """A Dataset that is no more."""
        self.datasets.pop(place, None)
        self.last_use.pop(place, None)

    # -- what changes concern ---------------------------------------------------------------------

    def _child_watch(
        self, api: Api, kind: Kind, scope: tuple[str, ...]
    ) -> Watch[tuple[Place, Child]]:
        return Watch(
            api,
            kind,
            lambda document: _read_child(kind, document),
            lambda _, before, after: self._child_changed(before, after),
            labels=naming.OURS,
            namespaces=scope,
        )

    def _child_changed(
        self, before: tuple[Place, Child] | None, after: tuple[Place, Child] | None
    ) -> None:
        if before is not None:
            self._children[before[0]].pop(before[1].ref, None)
            if not self._children[before[0]]:
                del self._children[before[0]]
        for found in (before, after):
            if found is not None and found[1].ref.namespace not in ("", found[0][0]):
                self._shares(found[1].ref.namespace)
        if before is not None and after is not None and before[0] != after[0]:
            self._touch(before[0])  # somebody changed the labels that say whose it is
        if after is not None:
            place, child = after
            self._children[place][child.ref] = child
            same = self._expected.get(child.ref) == child.fingerprint
            if not same or (before is not None and before[1].phase != child.phase):
                self._touch(place)
        elif before is not None:
            self._expected.pop(before[1].ref, None)
            self._touch(before[0])

    def _node_changed(self, _: Any, before: Node | None, after: Node | None) -> None:
        del before, after
        for place in self.datasets:
            self._concerns(place)

    def _pod_changed(self, _: Any, before: Pod | None, after: Pod | None) -> None:
        for pod, there in ((before, False), (after, True)):
            if isinstance(pod, WorkerPod):
                self._worker_changed(pod, there=there)
            elif isinstance(pod, UserPod):
                self._user_changed(pod, there=there)
            elif isinstance(pod, PluginPod):
                if there:
                    self._plugins[pod.name] = pod
                else:
                    self._plugins.pop(pod.name, None)
                for place, pods in self._workers.items():
                    if any(worker.node == pod.node for worker in pods.values()):
                        self._touch(place)

    def _worker_changed(self, pod: WorkerPod, *, there: bool) -> None:
        place = (pod.namespace, pod.dataset)
        if there:
            self._workers[place][pod.uid] = pod
        else:
            self._workers[place].pop(pod.uid, None)
            if not self._workers[place]:
                del self._workers[place]
        self._touch(place)

    def _user_changed(self, pod: UserPod, *, there: bool) -> None:
        for name in dict.fromkeys((*pod.claims, *pod.inline)):
            place = (pod.namespace, name)
            if there:
                self._users[place][pod.uid] = pod
            else:
                self._users[place].pop(pod.uid, None)
                if not self._users[place]:
                    del self._users[place]
            for home in self._homes(place):
                if pod.node:
                    self.last_use[home][pod.node] = time.time()
                self._touch(home)

    def _homes(self, place: Place) -> list[Place]:
        """The Datasets that a claim may be of: its own namespace's, and those shared into it."""
        namespace, name = place
        found = [place] if place in self.datasets else []
        claim = Ref("PersistentVolumeClaim", namespace, name)
        shared = self._child_watches["PersistentVolumeClaim"].items.get((namespace, name))
        if shared is not None and shared[1].ref == claim and shared[0] != place:
            found.append(shared[0])
        return found

    def _touch(self, place: Place) -> None:
        if place in self.datasets:
            self._concerns(place)


def _place(document: Mapping[str, Any]) -> Place:
    metadata = document["metadata"]
    return metadata["namespace"], metadata["name"]


def _saw(
    known: dict[Place, Mapping[str, Any]], document: Mapping[str, Any], *, gone: bool = False
) -> None:
    place = _place(document)
    before = known.get(place)
    if before is not None and _age(document) < _age(before):
        return
    if gone:
        known.pop(place, None)
    else:
        known[place] = document


def _age(document: Mapping[str, Any]) -> int:
    """Grows with every change. Kubernetes promises that since 1.35; before it was so too."""
    version = str(document["metadata"].get("resourceVersion") or "0")
    return int(version) if version.isdecimal() else 0


def _read_child(kind: Kind, document: Mapping[str, Any]) -> tuple[Place, Child] | None:
    metadata = document["metadata"]
    labels = metadata.get("labels") or {}
    name = labels.get(naming.DATASET_LABEL)
    if not name:
        return None
    owner = next(
        (o["uid"] for o in metadata.get("ownerReferences") or () if o.get("kind") == "Dataset"), ""
    )
    namespace = metadata.get("namespace", "")
    child = Child(
        ref=Ref(kind.kind, namespace, metadata["name"]),
        uid=metadata["uid"],
        fingerprint=fingerprint(document),
        phase=(document.get("status") or {}).get("phase") or "",
        deleting=bool(metadata.get("deletionTimestamp")),
        dataset_uid=owner or labels.get(naming.UID_LABEL, ""),
        named=named_nodes(dict(document)) if kind is kinds.DAEMON_SET else frozenset(),
    )
    return (labels.get(naming.HOME_LABEL) or namespace, name), child
