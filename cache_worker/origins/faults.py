"""What an error of an origin means: give up, ask again, read the credentials again. Pure.

obstore has few exception classes and puts the rest into its text; this file is the only one that
reads that text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto

from cacheop.api.errors import (
    CacheopError,
    CredentialError,
    NotFoundError,
    OriginChanged,
    OriginError,
    UserError,
)

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_CAUSE = re.compile(r'(?:message|error|details): "([^"]{3,200})"')
_DNS = re.compile(r"dns error|failed to lookup address")

# S3 answers 400 for a token that ran out, and 403 for a clock that is wrong.
_REFUSED_CODES = frozenset({"ExpiredToken", "InvalidToken", "TokenRefreshRequired"})
_RETRIED_CODES = frozenset({"SlowDown", "InternalError", "RequestTimeout", "ServiceUnavailable"})
# Where obstore looks when nothing else gives credentials: metadata services and token files.
_CREDENTIAL_SOURCES = (
    "/latest/api/token",
    "/latest/meta-data",
    "169.254.169.254",
    "169.254.170.2",
    "metadata.google.internal",
    "token file",
    "AssumeRoleWithWebIdentity",
)
_RETRIED_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504, 509})
_FATAL_NAMES = frozenset({"NotSupportedError", "UnknownConfigurationKeyError", "ValueError"})
_FATAL_TEXT = (
    "InvalidCertificate",
    "certificate",
    "NotPartial",
    "MissingContentLength",
    "MissingEtag",
)


class Kind(Enum):
    """What to do about it."""

    RETRY = auto()
    REFUSED = auto()
    NO_CREDENTIALS = auto()
    GONE = auto()
    NO_STORE = auto()
    CHANGED = auto()
    ODD_KEY = auto()
    REDIRECT = auto()
    FATAL = auto()


@dataclass(frozen=True, slots=True)
class Fault:
    """An origin's error, understood."""

    kind: Kind
    reason: str
    """One line for people, without the key, from the status or the system's own words."""


def classify(name: str, text: str) -> Fault:
    """The meaning of an exception of class `name` with message `text`."""
    status_match, code_match = _STATUS.search(text), _CODE.search(text)
    status = int(status_match[1]) if status_match else 0
    code = code_match[1] if code_match else ""
    reason = f"HTTP {status} {code}".strip() if status else _reason(text)
    if any(source in text for source in _CREDENTIAL_SOURCES):
        detail = text.splitlines()[0][:200] if "token file" in text else reason
        return Fault(Kind.NO_CREDENTIALS, f"no credentials were found ({detail})")
    if code == "NoSuchBucket":
        return Fault(Kind.NO_STORE, reason)
    if (
        status in {401, 403}
        or code in _REFUSED_CODES
        or name in {"PermissionDeniedError", "UnauthenticatedError"}
    ):
        return Fault(Kind.REFUSED, reason)
    if name == "PreconditionError" or status == 412:
        return Fault(Kind.CHANGED, reason)
    if name == "FileNotFoundError" or status in {404, 410}:
        return Fault(Kind.GONE, reason)
    if status == 416:
        return Fault(Kind.CHANGED, "it is shorter now (HTTP 416)")
    if name == "InvalidPathError" or "Could not parse path" in text:
        return Fault(Kind.ODD_KEY, reason)
    if "redirect without LOCATION" in text or status in {301, 307}:
        return Fault(Kind.REDIRECT, reason)
    if status in _RETRIED_STATUS or code in _RETRIED_CODES:
        return Fault(Kind.RETRY, reason)
    if status or name in _FATAL_NAMES or any(mark in text for mark in _FATAL_TEXT):
        return Fault(Kind.FATAL, reason)
    return Fault(Kind.RETRY, reason)  # no status: the connection failed, was cut or timed out


def _reason(text: str) -> str:
    """The innermost cause that obstore's debug text names, else its first line."""
    if "InvalidCertificate" in text:
        return "its certificate is not trusted; name its authority by SSL_CERT_FILE or verify"
    if _DNS.search(text):
        return "the host name is not known"
    if "IncompleteBody" in text:
        return "the connection was cut in the middle of the answer"
    if "NotPartial" in text or "Range request not supported" in text:
        return "the server does not serve ranges of a file"
    if "TimedOut" in text or "timed out" in text:
        return "timed out"
    causes = _CAUSE.findall(text)
    first = text.splitlines()[0] if text else "unknown error"
    return causes[-1] if causes else first[:200]


def raised(fault: Fault, mount_point: str, key: str, attempts: int) -> CacheopError:
    """The error that a reader or user gets; `key` is empty when it is about the mount itself."""
    what = f"{key!r} of {mount_point}" if key else mount_point
    if fault.kind is Kind.REFUSED:
        return CredentialError(
            f"the origin refuses us {what}: {fault.reason}",
            hint="Check the credentials of this mountPoint and that they may list and read it",
        )
    if fault.kind is Kind.NO_CREDENTIALS:
        return CredentialError(
            f"cannot read {what}: {fault.reason}",
            hint="Give credentials by encryptOptions, the environment, a profile or a role, or set "
            "`anon: true` for public data",
        )
    if fault.kind in {Kind.CHANGED, Kind.GONE} and key:
        reason = "it is gone" if fault.kind is Kind.GONE else fault.reason
        return OriginChanged(
            f"{what} is no longer the object in the manifest: {reason}",
            hint="Run `cacheop refresh` to make a new version",
        )
    if fault.kind in {Kind.NO_STORE, Kind.GONE}:
        return NotFoundError(
            f"{what} does not exist: {fault.reason}", hint="Check the name in mountPoint"
        )
    if fault.kind is Kind.ODD_KEY:
        return OriginError(
            f"{what} cannot be addressed: {fault.reason}",
            hint="With the option `engine: fsspec` such keys are listed and left out",
        )
    if fault.kind is Kind.REDIRECT:
        return UserError(
            f"{what} is in another region: {fault.reason}",
            hint="Set the option `region` to the bucket's region",
        )
    if fault.kind is Kind.FATAL:
        return OriginError(f"the origin cannot serve {what}: {fault.reason}")
    return OriginError(
        f"the origin does not answer for {what}: {fault.reason}, {attempts} attempts",
        hint="Check endpoint_url and that this machine can reach it; what is cached can be read",
    )
