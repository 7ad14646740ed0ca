"""A kind's objects as they are now, reduced to what is needed: paged list, then watch, for ever.

After a gap the list is taken anew and compared, so that what vanished meanwhile is noticed too.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from cacheop.operator.api import ApiError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from cacheop.operator.api import Api
    from cacheop.operator.kinds import Kind

log = logging.getLogger("cacheop.operator")

T = TypeVar("T")
Key = tuple[str, str]
RETRY_SECONDS, RETRY_MAX_SECONDS = 0.5, 10.0


class Watch(Generic[T]):
    """Owns `items`.

    `reduce` keeps what matters of an object (None = nothing does); `changed` is told of each
    difference: (key, before, after).
    """

    def __init__(
        self,
        api: Api,
        kind: Kind,
        reduce: Callable[[Mapping[str, Any]], T | None],
        changed: Callable[[Key, T | None, T | None], None],
        *,
        labels: str = "",
        namespaces: Iterable[str] = (),
    ) -> None:
        self.kind = kind
        self.items: dict[Key, T] = {}
        self._api, self._reduce, self._changed, self._labels = api, reduce, changed, labels
        self._namespaces = tuple(namespaces) if kind.namespaced else ()
        self._unlisted = set(self._namespaces or ("",))
        self.listed = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for namespace in self._namespaces or ("",):
                group.create_task(self._follow(namespace))

    def learn(self, document: Mapping[str, Any]) -> None:
        """An object as a call of ours got it: known before the watch tells."""
        self._put(document)

    async def _follow(self, namespace: str) -> None:
        version, wait = "", RETRY_SECONDS
        while True:
            try:
                if not version:
                    version = await self._list(namespace)
                    self._unlisted.discard(namespace)
                    if not self._unlisted:
                        self.listed.set()
                async for event, document in self._api.watch(
                    self.kind, namespace, version, labels=self._labels
                ):
                    version = document["metadata"]["resourceVersion"]
                    wait = RETRY_SECONDS
                    if event == "DELETED":
                        self._drop(_key(document))
                    elif event != "BOOKMARK":
                        self._put(document)
            except ApiError as error:
                if error.status == 410:
                    version = ""
                    continue
                # Once for each time that it breaks: an API server may be away for long.
                level = logging.WARNING if wait == RETRY_SECONDS else logging.DEBUG
                log.log(level, "watching %s: %s; trying again", self.kind.plural, error)
                if error.status:
                    version = ""
                await asyncio.sleep(wait)
                wait = min(2 * wait, RETRY_MAX_SECONDS)

    async def _list(self, namespace: str) -> str:
        seen: set[Key] = set()
        version = ""
        async for page in self._api.pages(self.kind, namespace, labels=self._labels):
            version = version or page.version
            for document in page.items:
                if self._put(document):
                    seen.add(_key(document))
        inside = [key for key in self.items if not namespace or key[0] == namespace]
        for key in inside:
            if key not in seen:
                self._drop(key)
        return version

    def _put(self, document: Mapping[str, Any]) -> bool:
        key, after = _key(document), self._reduce(document)
        if after is None:
            self._drop(key)
            return False
        before = self.items.get(key)
        if before != after:
            self.items[key] = after
            self._changed(key, before, after)
        return True

    def _drop(self, key: Key) -> None:
        before = self.items.pop(key, None)
        if before is not None:
            self._changed(key, before, None)


def _key(document: Mapping[str, Any]) -> Key:
    metadata = document["metadata"]
    return metadata.get("namespace", ""), metadata["name"]
