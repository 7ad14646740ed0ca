"""What the kubelet is told when a call cannot be done: a gRPC code, and words for a person. Pure.

The kubelet tries again whatever the code is, and shows the words as an event of the pod.
"""

from __future__ import annotations

from cacheop.api.errors import (
    CacheopError,
    NotFoundError,
    OriginError,
    StoreError,
    UserError,
    WorkerUnavailable,
)

INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS = "INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS"
PERMISSION_DENIED, FAILED_PRECONDITION = "PERMISSION_DENIED", "FAILED_PRECONDITION"
ABORTED, UNAVAILABLE, INTERNAL = "ABORTED", "UNAVAILABLE", "INTERNAL"

_CODES: tuple[tuple[type[CacheopError], str], ...] = (
    (NotFoundError, NOT_FOUND),
    (UserError, FAILED_PRECONDITION),
    (WorkerUnavailable, UNAVAILABLE),
    (OriginError, UNAVAILABLE),
    (StoreError, INTERNAL),
)


class Refusal(CacheopError):  # noqa: N818 - reads as what it is
    """An error whose gRPC code is known."""

    def __init__(self, code: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code


def code_of(error: OSError) -> str:
    """The gRPC code of any error of ours."""
    if isinstance(error, Refusal):
        return error.code
    return next((code for kind, code in _CODES if isinstance(error, kind)), INTERNAL)


def invalid(message: str, *, hint: str = "") -> Refusal:
    """The request itself is wrong."""
    return Refusal(INVALID_ARGUMENT, message, hint=hint)
