"""An API server in memory, as far as watches and the Lease need one: versions, conflicts, gaps."""

from __future__ import annotations

import asyncio
import copy
from typing import TYPE_CHECKING, Any

from cacheop.operator.api import ApiError, Page

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cacheop.operator.kinds import Kind

JSON = dict[str, Any]


class ApiInMemory:
    """Answers like `cacheop.operator.api.Api`. `lose()` forgets the past: watches get 410."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], JSON] = {}
        self.away = False
        self.lists = 0
        self._version = 0
        self._events: list[tuple[int, str, str, JSON]] = []
        self._oldest = 0
        self._changed = asyncio.Event()

    def put(self, kind: Kind, name: str, namespace: str = "", **rest: Any) -> None:
        """Make or change an object."""
        key = (kind.plural, namespace, name)
        event = "MODIFIED" if key in self.objects else "ADDED"
        self._version += 1
        metadata = {"name": name, "namespace": namespace, "resourceVersion": str(self._version)}
        self.objects[key] = {"kind": kind.kind, "metadata": metadata, **rest}
        self._tell(kind, event, self.objects[key])

    def take(self, kind: Kind, name: str, namespace: str = "") -> None:
        """Delete an object."""
        gone = copy.deepcopy(self.objects.pop((kind.plural, namespace, name)))
        self._version += 1
        gone["metadata"]["resourceVersion"] = str(self._version)
        self._tell(kind, "DELETED", gone)

    def lose(self) -> None:
        """The past is compacted away."""
        self._events, self._oldest = [], self._version
        self._changed.set()

    def _tell(self, kind: Kind, event: str, document: JSON) -> None:
        self._events.append((self._version, kind.plural, event, copy.deepcopy(document)))
        self._changed.set()

    async def pages(
        self, kind: Kind, namespace: str = "", *, labels: str = "", fields: str = ""
    ) -> AsyncIterator[Page]:
        """One object a page."""
        del labels, fields
        self._answer()
        self.lists += 1
        version = str(self._version)
        found = [o for (plural, home, _), o in sorted(self.objects.items())
                 if plural == kind.plural and namespace in ("", home)]  # fmt: skip
        for one in [[o] for o in copy.deepcopy(found)] or [[]]:
            yield Page(one, version)

    async def watch(
        self, kind: Kind, namespace: str, version: str, *, labels: str = ""
    ) -> AsyncIterator[tuple[str, JSON]]:
        """Until `lose`."""
        del labels
        at = int(version)
        while True:
            self._answer()
            if at < self._oldest:
                raise ApiError("too old", status=410)
            for number, plural, event, document in list(self._events):
                inside = namespace in ("", document["metadata"]["namespace"])
                if number > at and plural == kind.plural and inside:
                    at = number
                    yield event, document
            self._changed.clear()
            await self._changed.wait()

    async def get(self, kind: Kind, namespace: str, name: str) -> JSON | None:
        """None when it is not there."""
        self._answer()
        return copy.deepcopy(self.objects.get((kind.plural, namespace, name)))

    async def create(self, kind: Kind, namespace: str, document: JSON) -> JSON:
        """409 when there is one."""
        self._answer()
        name = document["metadata"]["name"]
        if (kind.plural, namespace, name) in self.objects:
            raise ApiError("exists", status=409)
        self.put(kind, name, namespace, spec=copy.deepcopy(document["spec"]))
        return document

    async def replace(self, kind: Kind, document: JSON) -> JSON:
        """409 when it was changed meanwhile."""
        self._answer()
        metadata = document["metadata"]
        known = self.objects[kind.plural, metadata["namespace"], metadata["name"]]
        if known["metadata"]["resourceVersion"] != metadata["resourceVersion"]:
            raise ApiError("changed", status=409)
        self.put(
            kind, metadata["name"], metadata["namespace"], spec=copy.deepcopy(document["spec"])
        )
        return document

    def _answer(self) -> None:
        if self.away:
            raise ApiError("the API server did not answer")
