"""Posts events, each once in a while."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING

from cacheop.operator.api import ApiError
from cacheop.operator.kinds import EVENT
from cacheop.operator.naming import FIELD_MANAGER
from cacheop.operator.observed import rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cacheop.operator.api import Api
    from cacheop.operator.hindrance import Event

AGAIN_SECONDS = 600.0
KEPT = 10_000


class Poster:
    """Owns what was posted when, so that nothing is said twice within ten minutes."""

    def __init__(self, api: Api, identity: str) -> None:
        self._api, self._identity = api, identity
        self._posted: dict[tuple[str, str, str], float] = {}

    async def post(self, events: Iterable[Event]) -> None:
        """Events are a courtesy: what the API server refuses is let go."""
        for event in events:
            key = (event.uid, event.reason, event.message)
            now = time.monotonic()
            if now - self._posted.get(key, -AGAIN_SECONDS) < AGAIN_SECONDS:
                continue
            self._posted[key] = now
            if len(self._posted) > KEPT:
                self._posted.pop(next(iter(self._posted)))
            try:
                await self._api.create(EVENT, event.namespace, self._document(event))
            except ApiError as error:
                if not error.status:
                    self._posted.pop(key, None)

    def _document(self, event: Event) -> dict[str, object]:
        now = rfc3339(time.time())
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": f"{event.name[:200]}.{uuid.uuid4().hex[:16]}",
                "namespace": event.namespace,
            },
            "involvedObject": {
                "apiVersion": event.api_version,
                "kind": event.kind,
                "namespace": event.namespace,
                "name": event.name,
                "uid": event.uid,
            },
            "reason": event.reason,
            "message": event.message,
            "type": "Warning" if event.warning else "Normal",
            "source": {"component": FIELD_MANAGER},
            "reportingComponent": "cacheop.io/operator",
            "reportingInstance": self._identity,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
