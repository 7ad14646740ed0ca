"""What a PeerServer needs of the worker behind it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks, as it said of itself with a valid token."""

    node: str
    zone: str


@dataclass(frozen=True, slots=True)
class OpenChunk:
    """A chunk that is PRESENT in a file that is open. The one who got it closes it."""

    fd: int
    offset: int
    length: int
    checksum: int
    """As it was recorded when the bytes came from the origin."""
    still_good: Callable[[], bool]
    """Whether it was not dropped since; asked after the bytes were read. From any thread."""

    def close(self) -> None:
        """Give the fd back."""
        os.close(self.fd)


@dataclass(frozen=True, slots=True)
class Provided:
    """A chunk that is not in the store: read through."""

    data: memoryview
    checksum: int


class Incoming(Protocol):
    """A chunk that is still arriving here. Called in threads."""

    length: int

    def piece(self, after: int, seconds: float) -> memoryview:
        """What came after the first `after` bytes; waits for some. Empty: that was all.

        Raises CacheopError, or TimeoutError when nothing came for so long.
        """
        ...

    def whole(self) -> int:
        """The checksum, once that was all."""
        ...


class Service(Protocol):
    """The worker, as its peers see it."""

    def open_present(self, version: str, row: int, chunk: int) -> OpenChunk | None:
        """The chunk, if it is here. Called in threads; CacheopError or OSError."""
        ...

    async def provide(
        self,
        version: str,
        row: int,
        chunk: int,
        length: int,
        *,
        only_if_present: bool,
        hops: int,
        without: tuple[str, ...],
        asker: Asker,
    ) -> Provided | Incoming | None:
        """Get an absent chunk, on the loop. None: it is present now. Or a CacheopError.

        NotFoundError if it is neither here nor arriving and `only_if_present`. Cancelled when the
        asker went away.
        """
        ...

    async def answer(
        self, op: str, meta: dict[str, Any], asker: Asker
    ) -> tuple[dict[str, Any], bytes | memoryview]:
        """Any other operation, on the loop; or a CacheopError."""
        ...
