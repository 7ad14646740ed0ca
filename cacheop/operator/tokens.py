"""The secrets of a Dataset, computed from the master key: nothing is kept or read back. Pure."""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from cacheop.api.tokens import client_token


@dataclass(frozen=True, slots=True)
class MasterKey:
    """The key and its epoch: another epoch, and every secret is another one."""

    key: bytes
    epoch: int = 1

    def __repr__(self) -> str:
        return f"MasterKey(epoch={self.epoch})"

    def control(self, uid: str) -> str:
        """What workers and operator know: everything may be asked with it."""
        return self._derived(uid, "control")

    def client(self, uid: str) -> str:
        """What readers know. A worker derives the same from its control token."""
        return client_token(self.control(uid))

    def redis(self, uid: str) -> str:
        """The password of the Dataset's user in Redis."""
        return self._derived(uid, "redis")

    def _derived(self, uid: str, purpose: str) -> str:
        return hmac.new(self.key, f"{uid}:{purpose}:{self.epoch}".encode(), "sha256").hexdigest()
