"""What fsspec's file systems tell about a file, in the manifest's words. Pure.

Each implementation has its own names for the same thing.
"""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_ETAGS = ("ETag", "etag", "e_tag", "blob_id", "md5", "md5Hash")
_TIMES = ("mtime", "LastModified", "last_modified", "Last-Modified", "updated", "modified")
_VERSIONS = ("VersionId", "version_id", "versionId", "generation")


def etag(info: Mapping[str, Any]) -> str:
    """What names the content; empty if nothing does."""
    found = next((info[name] for name in _ETAGS if info.get(name)), "")
    return found if isinstance(found, str) else ""


def version_id(info: Mapping[str, Any]) -> str:
    """The origin's own version id; empty if there is none."""
    found = str(next((info[name] for name in _VERSIONS if info.get(name)), ""))
    return "" if found == "null" else found


def mtime_ns(info: Mapping[str, Any]) -> int:
    """When it was modified, nanoseconds since the epoch; 0 if unknown."""
    value = next((info[name] for name in _TIMES if info.get(name)), None)
    if isinstance(value, str):
        value = _parse(value)
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        return int(aware.timestamp() * 1_000_000) * 1000
    if isinstance(value, int | float):
        return int(value * 1_000_000_000)
    return 0


def _parse(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        pass
    try:
        return parsedate_to_datetime(text)
    except ValueError:
        return None
