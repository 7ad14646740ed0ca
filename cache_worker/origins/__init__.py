"""Origins: where the bytes come from. One protocol, one file per kind, one conformance suite.

`open_origin` is the only way in: it picks the kind by the scheme of `mountPoint`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from cacheop.api.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from typing_extensions import Buffer

    from cacheop.api.dataset import Mount


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


Arrived = Callable[[int, memoryview], None]
"""(offset in the span, bytes)."""


class Origin(Protocol):
    """One mount's slow storage. Used from one asyncio loop; `list_objects` from the index child."""

    def list_objects(self) -> Iterator[Listing]:
        """Every object below the mount point, in batches, as the origin gives them."""
        ...

    async def fetch(
        self, obj: OriginObject, offset: int, length: int, arrived: Arrived | None = None
    ) -> Buffer:
        """Exactly `length` bytes of exactly that object, or an OriginError (after retries).

        `arrived` is told of pieces as they come, where the origin gives pieces and names the
        content; after a fault in between they may come again from the beginning.

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


_OBSTORE = "cache_worker.origins.object_store"
_FSSPEC = "cache_worker.origins.fsspec_origin"

# scheme -> module with open_mount(mount, secrets_dir); every other scheme is fsspec's.
ORIGINS: dict[str, str] = {
    "s3": _OBSTORE,
    "s3a": _OBSTORE,
    "gs": _OBSTORE,
    "gcs": _OBSTORE,
    "az": _OBSTORE,
    "abfs": _OBSTORE,
    "abfss": _OBSTORE,
    "http": _OBSTORE,
    "https": _OBSTORE,
}


def open_origin(mount: Mount, secrets_dir: Path) -> Origin:
    """The origin of `mount`; `secrets_dir` has a directory with key files for each Secret.

    Asks the origin nothing yet. UserError for an unknown scheme, option or value, CredentialError
    for a Secret that is not there.
    """
    scheme = mount.mount_point.partition("://")[0].lower()
    engine = mount.options.get("engine")
    if engine not in {None, "fsspec", "obstore"} or (engine == "obstore" and scheme not in ORIGINS):
        raise UserError(
            f"engine {engine!r} cannot serve {mount.mount_point}",
            hint="`engine` is fsspec, or obstore for s3, gs, az and http",
        )
    name = _FSSPEC if engine == "fsspec" else ORIGINS.get(scheme, _FSSPEC)
    if scheme in {"http", "https"} and "?" in mount.mount_point:
        name = _FSSPEC  # obstore addresses by path only
    origin: Origin = importlib.import_module(name).open_mount(mount, secrets_dir)
    return origin
