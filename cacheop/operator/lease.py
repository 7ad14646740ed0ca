"""One active operator: who holds the Lease acts, the others wait until it is not renewed.

The clocks of two machines are never compared: a lease is over when its record did not change for
its duration by the clock of who waits.
"""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cacheop.operator import naming
from cacheop.operator.api import ApiError
from cacheop.operator.kinds import LEASE

if TYPE_CHECKING:
    from cacheop.operator.api import Api

log = logging.getLogger("cacheop.operator")

RENEW_SHARE = 0.2
ACT_SHARE = 0.8
"""Of the duration: who could not renew for so long stops acting before another begins."""


class Lost(Exception):  # noqa: N818 - what happened
    """Another operator holds the Lease now."""


class Lease:
    """Owns our claim to be the active one."""

    def __init__(self, api: Api, namespace: str, identity: str, seconds: float) -> None:
        self._api, self._namespace, self._identity = api, namespace, identity
        self._seconds = seconds
        self._renewed_at = 0.0
        self._seen: tuple[str, str] = ("", "")
        self._seen_at = 0.0
        self.acting = asyncio.Event()
        """Set while we may act."""

    async def acquire(self) -> None:
        """Wait until we are the active operator."""
        while not await self._try():  # noqa: ASYNC110 - another machine's event
            await asyncio.sleep(self._seconds * RENEW_SHARE / 2)
        self.acting.set()
        log.info("%s is the active operator", self._identity)

    async def hold(self) -> None:
        """Renew until cancelled. Raises Lost; while the API server is away `acting` is cleared."""
        while True:
            await asyncio.sleep(self._seconds * RENEW_SHARE)
            try:
                if not await self._try():
                    if self._seen[0] == self._identity:
                        continue  # two renewals of ours met
                    self.acting.clear()
                    raise Lost(f"{self._seen[0]} is the active operator now")
                if not self.acting.is_set():
                    log.info("the Lease is renewed again")
                    self.acting.set()
            except ApiError as error:
                if time.monotonic() - self._renewed_at > self._seconds * ACT_SHARE:
                    if self.acting.is_set():
                        log.warning("the Lease cannot be renewed, so nothing is done: %s", error)
                    self.acting.clear()

    async def release(self) -> None:
        """Let another one begin at once."""
        try:
            there = await self._api.get(LEASE, self._namespace, naming.LEASE)
            if there is not None and there["spec"].get("holderIdentity") == self._identity:
                there["spec"] |= {"holderIdentity": "", "renewTime": None}
                await self._api.replace(LEASE, there)
        except ApiError as error:
            log.warning("the Lease is left to run out: %s", error)

    async def _try(self) -> bool:
        """Take or renew it, where that is right. ApiError when the API server does not answer."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._seconds * ACT_SHARE / 2):
                held = await self._take()
        except TimeoutError as error:
            raise ApiError("the API server is too slow for the Lease") from error
        if held:
            self._renewed_at = began
        return held

    async def _take(self) -> bool:
        there = await self._api.get(LEASE, self._namespace, naming.LEASE)
        try:
            if there is None:
                await self._api.create(LEASE, self._namespace, self._document())
                return True
            spec = there.get("spec") or {}
            holder = str(spec.get("holderIdentity") or "")
            record = (holder, str(spec.get("renewTime") or ""))
            if record != self._seen:
                self._seen, self._seen_at = record, time.monotonic()
            over = time.monotonic() - self._seen_at > float(
                spec.get("leaseDurationSeconds") or self._seconds
            )
            if holder and holder != self._identity and not over:
                return False
            there["spec"] = self._document()["spec"]
            await self._api.replace(LEASE, there)
        except ApiError as error:
            if error.status == 409:
                return False  # another one was faster
            raise
        return True

    def _document(self) -> dict[str, Any]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": naming.LEASE, "namespace": self._namespace},
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": max(1, round(self._seconds)),
                "renewTime": now,
            },
        }
