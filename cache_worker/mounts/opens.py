"""How OPEN is answered: one class for each FUSE mode. Passthrough has its own module."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Protocol

from cache_worker.mounts import kernel

if TYPE_CHECKING:
    from cache_worker.mounts.channel import Channel, Request

_KEEP = kernel.OPEN_OUT.pack(0, kernel.FOPEN_KEEP_CACHE | kernel.FOPEN_NOFLUSH, 0)


class Opens(Protocol):
    """Answers OPEN and RELEASE of files."""

    wanted: int
    """INIT bits that it needs besides the common ones; without one of them, PlainOpens serves."""

    keeps: bool
    """Whether the kernel keeps what it was answered, so that the store's own pages can go."""

    def open(self, request: Request, row: int) -> None:
        """Answer an OPEN for reading of the file at `row`, now or later."""
        ...

    def release(self, request: Request, row: int) -> None:
        """Answer a RELEASE."""
        ...

    def tick(self) -> None:
        """Once a second, on the line's thread."""
        ...

    def drop(self, unique: int) -> bool:
        """Forget an OPEN that waits here, as it was interrupted; False: it does not wait here."""
        ...


class PlainOpens:
    """Mode Fuse: reads come here, the kernel keeps their pages from one open to the next."""

    wanted = 0
    keeps = True

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def open(self, request: Request, row: int) -> None:
        """No state: the file handle is 0."""
        del row
        self._channel.answer(request, _KEEP)

    def release(self, request: Request, row: int) -> None:
        """Nothing to give back."""
        del row
        self._channel.answer(request)

    def tick(self) -> None:
        """Nothing grows old."""

    def drop(self, unique: int) -> bool:
        """No OPEN waits."""
        del unique
        return False


class ZeroOpens(PlainOpens):
    """Mode ZeroOpen: after one ENOSYS the kernel opens without asking, and keeps pages."""

    wanted = kernel.NO_OPEN_SUPPORT | kernel.NO_OPENDIR_SUPPORT

    def open(self, request: Request, row: int) -> None:
        """The first, and those on their way at the same time."""
        del row
        self._channel.fail(request, errno.ENOSYS)
