"""Origins: where the bytes come from. One protocol, one file per kind, one conformance suite.

`open_origin` is the only way in: it picks the kind by the scheme of `mountPoint`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Buffer, Iterator


@dataclass(frozen=True, slots=True)
class OriginObject:
    """One object as the manifest knows it. `key` is relative to the mount's `mountPoint`.

    `etag` and `version_id` are opaque and may be empty; with both empty, `size_bytes` and
    `mtime_ns` are what is checked before and after each read.
    """

    key: str
    size_bytes: int
    etag: str
    version_id: str
    mtime_ns: int


class Origin(Protocol):
    """One mount's slow storage. Used from one asyncio loop; `list_objects` from the index child."""

    def list_objects(self) -> Iterator[Listing]:
        """Every object below the mount point, in batches, as the origin gives them."""
        ...

    async def fetch(self, obj: OriginObject, offset: int, length: int) -> Buffer:
        """Exactly `length` bytes of exactly that object, or an OriginError (after retries).

        OriginChanged when the object there is another one now or is gone; CredentialError when the
        origin refuses us. Never short, never mixed.
        """
        ...

    async def check(self) -> None:
        """Raise the error a user should see if the origin cannot be reached or refuses us."""
        ...

    async def close(self) -> None:
        """Release connections and child processes."""
        ...


@dataclass(frozen=True, slots=True)
class Listing:
    """A batch of objects as equal-length columns (Arrow arrays or sequences; None = unknown)."""

    keys: object  # str, relative to the mount point
    sizes: object  # int, bytes
    mtimes_ns: object  # int, nanoseconds since the epoch; 0 if unknown
    etags: object  # str, "" if unknown
    version_ids: object  # str, "" if unknown
