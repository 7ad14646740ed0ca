"""The part of kopf: it watches Datasets and DataLoads, and every event becomes a key in our queue.

kopf writes nothing: with `on.event` alone it keeps no annotations and adds no finalizer.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import kopf

from cacheop.operator.kinds import DATALOAD, DATASET, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cacheop.operator.access import Access


class Stopped(Exception):  # noqa: N818 - what happened
    """kopf got a signal: it takes SIGTERM for itself."""


def settings() -> kopf.OperatorSettings:
    """What kopf is told: its defaults lose watches (its issues #204, #585, #847)."""
    found = kopf.OperatorSettings()
    found.watching.server_timeout = 300
    found.watching.client_timeout = 330
    found.watching.connect_timeout = 30
    found.watching.chunk_size = 500
    found.networking.request_timeout = 30
    found.batching.worker_limit = 16
    found.posting.enabled = False
    found.scanning.disabled = True
    found.persistence.finalizer = "cacheop.io/kopf"  # never set: no handler asks for one
    return found


def registry(
    access: Access, told: Callable[[Kind, str | None, dict[str, Any]], None]
) -> kopf.OperatorRegistry:
    """The handlers: one for each kind, and how kopf logs in."""
    found = kopf.OperatorRegistry()

    @kopf.on.login(registry=found)  # type: ignore[arg-type, unused-ignore]
    def login(**_: Any) -> kopf.ConnectionInfo:
        headers = access.headers()
        return kopf.ConnectionInfo(
            server=access.server,
            ca_path=access.ca_file or None,
            insecure=access.insecure,
            certificate_path=access.certificate_file or None,
            private_key_path=access.key_file or None,
            scheme="Bearer" if headers else None,
            token=access.token or None,
        )

    for kind in (DATASET, DATALOAD):
        _watch(found, kind, told)
    return found


def _watch(
    found: kopf.OperatorRegistry,
    kind: Kind,
    told: Callable[[Kind, str | None, dict[str, Any]], None],
) -> None:
    group, _, version = kind.api_version.partition("/")

    @kopf.on.event(group, version, kind.plural, registry=found, id=f"saw-{kind.plural}")
    async def saw(event: Mapping[str, Any], **_: Any) -> None:
        told(kind, event["type"], dict(event["object"]))


async def run(
    access: Access,
    namespaces: tuple[str, ...],
    told: Callable[[Kind, str | None, dict[str, Any]], None],
) -> None:
    """Until cancelled. Raises Stopped on a signal."""
    logging.getLogger("kopf").setLevel(logging.WARNING)
    stop = asyncio.Event()
    try:
        await kopf.operator(
            registry=registry(access, told),
            settings=settings(),
            standalone=True,
            clusterwide=not namespaces,
            namespaces=namespaces,
            stop_flag=stop,
        )
    finally:
        stop.set()
    raise Stopped
