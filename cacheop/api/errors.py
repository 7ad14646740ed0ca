"""The one exception tree of the public API, and the one table from it to errno and exit code.

    CacheopError            (an OSError, so training code that handles I/O errors handles ours)
    |- UserError            the input is wrong; nothing was done             exit 2
    |  |- SpecError         a field of a Dataset or DataLoad
    |  `- CredentialError   the origin refuses who we are
    |- NotFoundError        a path, version or Dataset that is not there     exit 4
    |- WorkerUnavailable    no worker answers; try again or start one        exit 3
    |- OriginError          the origin failed after retries                  exit 1
    |  `- OriginChanged     the object is no longer the one in the manifest
    |- SuspendedError       an uncached read while `spec.suspend` is set
    |- StoreError           the cache's own disk failed
    `- ProtocolError        bytes on a socket that are not our protocol

Every message says what failed, on what, and why; `hint` says what to do.
"""

from __future__ import annotations

import errno


class CacheopError(OSError):
    """Base of all errors that cacheop raises on purpose. `hint` is one sentence on what to do."""

    errno_code: int = errno.EIO
    exit_code: int = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(self.errno_code, message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}. {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[object, ...]:
        # OSError would rebuild itself from (errno, message); DataLoader workers pickle errors.
        return _rebuild, (type(self).__name__, self.message, self.hint)


class UserError(CacheopError):
    """Bad input; nothing was done."""

    errno_code = errno.EINVAL
    exit_code = 2


class SpecError(UserError):
    """A field of a Dataset or DataLoad is wrong."""


class CredentialError(UserError):
    """The origin refuses the credentials, or there are none."""

    errno_code = errno.EACCES


class NotFoundError(CacheopError, FileNotFoundError):
    """A path, version or Dataset that does not exist."""

    errno_code = errno.ENOENT
    exit_code = 4


class WorkerUnavailable(CacheopError):  # noqa: N818 - reads as a state, like ConnectionRefused
    """No worker answered."""

    errno_code = errno.EHOSTDOWN
    exit_code = 3


class OriginError(CacheopError):
    """The origin failed, after retries."""

    errno_code = errno.EIO


class OriginChanged(OriginError):  # noqa: N818 - likewise
    """The object at the origin is no longer the one in the manifest."""

    errno_code = errno.ESTALE


class SuspendedError(CacheopError):
    """An uncached read while the Dataset is suspended."""

    # Not EAGAIN: Python's readers take that for "no data yet" and return less instead of raising.
    errno_code = errno.EBUSY


class StoreError(CacheopError):
    """The cache's own disk failed."""


class ProtocolError(CacheopError):
    """Bytes on a socket that are not our protocol."""

    errno_code = errno.EPROTO


_BY_NAME: dict[str, type[CacheopError]] = {
    cls.__name__: cls
    for cls in (
        CacheopError,
        UserError,
        SpecError,
        CredentialError,
        NotFoundError,
        WorkerUnavailable,
        OriginError,
        OriginChanged,
        SuspendedError,
        StoreError,
        ProtocolError,
    )
}


def _rebuild(name: str, message: str, hint: str) -> CacheopError:
    return _BY_NAME.get(name, CacheopError)(message, hint=hint)


def to_wire(error: CacheopError) -> dict[str, str]:
    """`error` as the meta of an ERROR frame."""
    return {"error": type(error).__name__, "message": error.message, "hint": error.hint}


def from_wire(meta: dict[str, object]) -> CacheopError:
    """The error that an ERROR frame carries; an unknown name becomes the base class."""
    return _rebuild(
        str(meta.get("error")), str(meta.get("message", "unknown error")), str(meta.get("hint", ""))
    )
