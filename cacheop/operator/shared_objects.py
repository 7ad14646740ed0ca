"""The objects that many Datasets share: a namespace's Secret, and the list for node plugins."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cacheop.operator import naming
from cacheop.operator.api import ApiError
from cacheop.operator.kinds import CONFIG_MAP, DATASET, SECRET, Ref
from cacheop.operator.manifests import config

if TYPE_CHECKING:
    from cacheop.operator.api import Api
    from cacheop.operator.observe import Observer
    from cacheop.operator.settings import Settings

LIST_SECONDS = 2.0
"""Many Datasets at once are one change of the list."""


class SharedObjects:
    """Owns which namespaces have our Secret, and what the list says."""

    def __init__(self, api: Api, settings: Settings, observer: Observer) -> None:
        self._api, self._settings, self._observer = api, settings, observer
        self.namespaces: set[str] = set()
        self._listed: list[tuple[str, str, str]] | None = None
        self._generation = 0
        self._shards = 0

    async def secret(self, namespace: str) -> float | None:
        """Apply our part of the Secret without ever reading it; seconds until that is due again."""
        uids, shared = self._uids(namespace), self._shared(namespace)
        if not uids and not shared:
            if namespace in self.namespaces:
                await self._api.delete(SECRET, namespace, naming.SECRET)
                self.namespaces.discard(namespace)
            return None
        document = config.secret(namespace, uids, shared, self._settings.master)
        self.namespaces.add(namespace)
        try:
            await self._api.apply(SECRET, document)
        except ApiError as error:
            if error.status != 404:
                raise  # 404: the namespace is gone, and its Datasets soon
        return self._settings.secret_seconds

    def _uids(self, namespace: str) -> list[str]:
        return sorted(
            document["metadata"]["uid"]
            for place, document in self._observer.datasets.items()
            if place[0] == namespace
        )

    def _shared(self, namespace: str) -> list[str]:
        """Datasets that are really shared into it: their claim there is ours."""
        found = []
        for (home, name), document in self._observer.datasets.items():
            spec = document.get("spec") or {}
            listed = (spec.get("shareWith") or {}).get("namespaces") or ()
            uid = document["metadata"]["uid"]
            claim = Ref("PersistentVolumeClaim", namespace, name)
            if (
                home != namespace
                and namespace in listed
                and claim in self._observer.children((home, name), uid)
            ):
                found.append(uid)
        return sorted(found)

    async def datasets(self) -> float | None:
        """Tell node plugins which Datasets there are.

        Always from a whole fresh list: what is not on it loses its directories.
        """
        known = sorted(
            {
                (metadata["namespace"], metadata["name"], metadata["uid"])
                for namespace in self._settings.namespaces or ("",)
                async for page in self._api.pages(DATASET, namespace)
                for item in page.items
                if (metadata := item["metadata"])
            }
        )
        if self._listed is None:
            await self._read()
        if known == self._listed:
            return None
        shards = config.datasets(self._settings.namespace, known, self._generation + 1)
        for document in shards:
            await self._api.apply(CONFIG_MAP, document)
        for k in range(len(shards), self._shards):
            await self._api.delete(CONFIG_MAP, self._settings.namespace, naming.datasets_name(k))
        self._listed, self._generation, self._shards = known, self._generation + 1, len(shards)
        return None

    async def _read(self) -> None:
        """What an operator before us wrote, so that generations go on growing."""
        found: list[tuple[str, str, str]] = []
        shard, shards = 0, 1
        while shard < shards:
            name = naming.datasets_name(shard)
            there = await self._api.get(CONFIG_MAP, self._settings.namespace, name)
            if there is None and shard == 0:
                return  # to be made, also while there are no Datasets: what is gone may be removed
            told = _told(there)
            self._generation = max(self._generation, int(told.get("generation") or 0))
            shards = int(told.get("shards") or 1)
            found += [(d["namespace"], d["name"], d["uid"]) for d in told.get("datasets") or ()]
            shard += 1
        self._shards = shards
        self._listed = sorted(found)


def _told(document: dict[str, Any] | None) -> dict[str, Any]:
    try:
        told = json.loads(((document or {}).get("data") or {})["datasets.json"])
    except (KeyError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}
