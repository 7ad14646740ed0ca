"""The Kubernetes API over HTTP: get, paged list, watch, server-side apply, delete."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, NamedTuple

import aiohttp

from cacheop.api.errors import CacheopError
from cacheop.operator.naming import FIELD_MANAGER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from cacheop.operator.access import Access
    from cacheop.operator.kinds import Kind

CALL_SECONDS = 30.0
WATCH_SECONDS = 300
SILENCE_SECONDS = 90.0
"""Bookmarks come every minute; a watch that is silent for longer is dead."""
PAGE = 500
CALLS_AT_ONCE = 16
LINE_MAX_BYTES = 16 << 20
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"


class ApiError(CacheopError):
    """The API server refused, or did not answer (`status` 0)."""

    def __init__(self, message: str, *, status: int = 0, reason: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class Page(NamedTuple):
    """Some objects of a list, and its resource version."""

    items: list[dict[str, Any]]
    version: str


class Api:
    """Owns one HTTP session. Make it on the loop that uses it; `close` it there."""

    def __init__(self, access: Access) -> None:
        self._access = access
        connector = aiohttp.TCPConnector(limit=0, ssl=access.tls(), keepalive_timeout=60)
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=aiohttp.ClientTimeout(total=CALL_SECONDS)
        )
        self._turn = asyncio.Semaphore(CALLS_AT_ONCE)
        self.calls: dict[str, int] = {}
        """By verb and kind, since the beginning."""

    async def close(self) -> None:
        """End all connections."""
        await self._session.close()

    async def get(self, kind: Kind, namespace: str, name: str) -> dict[str, Any] | None:
        """An object; None when it is not there."""
        try:
            return await self._call("GET", kind, kind.path(namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def pages(
        self, kind: Kind, namespace: str = "", *, labels: str = "", fields: str = ""
    ) -> AsyncIterator[Page]:
        """A list, page by page. ApiError 410 when it took so long that it must begin anew."""
        query = {"limit": str(PAGE)} | _selectors(labels, fields)
        while True:
            found = await self._call("GET", kind, kind.path(namespace), query=query, verb="list")
            metadata = found.get("metadata") or {}
            yield Page(found.get("items") or [], str(metadata.get("resourceVersion") or ""))
            more = metadata.get("continue")
            if not more:
                return
            query = {"limit": str(PAGE), "continue": more} | _selectors(labels, fields)

    async def watch(
        self, kind: Kind, namespace: str, version: str, *, labels: str = ""
    ) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """(ADDED, MODIFIED, DELETED or BOOKMARK, object) since `version`, until it is ended."""
        query = {
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
        } | _selectors(labels, "")
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=CALL_SECONDS, sock_read=SILENCE_SECONDS
        )
        self._count("watch", kind)
        try:
            async with self._session.get(
                self._access.server + kind.path(namespace),
                params=query,
                headers=self._access.headers(),
                timeout=timeout,
            ) as response:
                if response.status >= 400:
                    raise _error(response.status, await response.read(), kind.plural)
                async for line in _lines(response.content):
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        body = json.dumps(event["object"]).encode()
                        raise _error(int(event["object"].get("code") or 500), body, kind.plural)
                    yield event["type"], event["object"]
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if isinstance(error, CacheopError):
                raise
            raise ApiError(f"the watch of {kind.plural} broke: {error!r}") from error

    async def apply(
        self, kind: Kind, document: Mapping[str, Any], subresource: str = ""
    ) -> dict[str, Any]:
        """Server-side apply as our one field manager; the object as it is then."""
        metadata = document["metadata"]
        path = kind.path(metadata.get("namespace", ""), metadata["name"], subresource)
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        body = json.dumps(document)  # JSON is YAML
        return await self._call("PATCH", kind, path, query=query, body=body, content=_APPLY)

    async def merge(
        self, kind: Kind, namespace: str, name: str, patch: Mapping[str, Any]
    ) -> dict[str, Any]:
        """A merge patch, for what cannot be applied: taking away what others wrote."""
        path = kind.path(namespace, name)
        query = {"fieldManager": FIELD_MANAGER}
        return await self._call(
            "PATCH", kind, path, query=query, body=json.dumps(patch), content=_MERGE
        )

    async def create(
        self, kind: Kind, namespace: str, document: Mapping[str, Any]
    ) -> dict[str, Any]:
        """A new object. ApiError 409 when there is one."""
        body = json.dumps(document)
        query = {"fieldManager": FIELD_MANAGER}
        return await self._call("POST", kind, kind.path(namespace), query=query, body=body)

    async def replace(self, kind: Kind, document: Mapping[str, Any]) -> dict[str, Any]:
        """The whole object anew. ApiError 409 when somebody changed it meanwhile."""
        metadata = document["metadata"]
        path = kind.path(metadata.get("namespace", ""), metadata["name"])
        return await self._call("PUT", kind, path, body=json.dumps(document))

    async def delete(self, kind: Kind, namespace: str, name: str, uid: str = "") -> None:
        """Delete, only the one with `uid` when that is given. That it is not there is fine."""
        options: dict[str, Any] = {"propagationPolicy": "Background"}
        if uid:
            options["preconditions"] = {"uid": uid}
        try:
            await self._call("DELETE", kind, kind.path(namespace, name), body=json.dumps(options))
        except ApiError as error:
            if error.status not in (404, 409):
                raise

    async def _call(
        self,
        method: str,
        kind: Kind,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: str | None = None,
        content: str = "application/json",
        verb: str = "",
    ) -> dict[str, Any]:
        headers = self._access.headers() | ({"Content-Type": content} if body else {})
        self._count(verb or _VERBS[method], kind)
        try:
            async with (
                self._turn,
                self._session.request(
                    method, self._access.server + path, params=query, data=body, headers=headers
                ) as response,
            ):
                answer = await response.read()
                if response.status >= 400:
                    raise _error(response.status, answer, path)
                found: dict[str, Any] = json.loads(answer)
                return found
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if isinstance(error, CacheopError):
                raise
            raise ApiError(f"the API server did not answer {method} {path}: {error!r}") from error

    def _count(self, verb: str, kind: Kind) -> None:
        key = f"{verb} {kind.plural}"
        self.calls[key] = self.calls.get(key, 0) + 1


_VERBS = {"GET": "get", "PATCH": "patch", "POST": "create", "PUT": "update", "DELETE": "delete"}


async def _lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Lines of any length; the reader's own end at 64 KiB."""
    buffer = bytearray()
    async for data in stream.iter_any():
        buffer += data
        while (end := buffer.find(b"\n")) >= 0:
            yield bytes(buffer[:end])
            del buffer[: end + 1]
        if len(buffer) > LINE_MAX_BYTES:
            raise ApiError("the API server sends an event of more than 16 MiB")


def _selectors(labels: str, fields: str) -> dict[str, str]:
    given = {"labelSelector": labels, "fieldSelector": fields}
    return {key: value for key, value in given.items() if value}


def _error(status: int, body: bytes, what: str) -> ApiError:
    try:
        told = json.loads(body)
        message, reason = str(told.get("message") or ""), str(told.get("reason") or "")
    except (ValueError, AttributeError):
        message, reason = body[:200].decode(errors="replace"), ""
    return ApiError(message or f"{what}: HTTP {status}", status=status, reason=reason)
