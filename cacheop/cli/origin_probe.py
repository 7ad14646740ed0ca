"""List one key of an origin with fsspec: a process of its own, started by `cacheop doctor`.

stdin {"url", "options"}, stdout {"keys", "seconds"} or {"error", "todo"}.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def main() -> int:
    """Answer one request; errors are answers."""
    request = json.load(sys.stdin)
    try:
        keys, seconds = _count(request["url"], request["options"])
    except Exception as error:  # noqa: BLE001 - any library, any error: it is the answer
        print(json.dumps({"error": _why(error), "todo": _todo(error)}))
        return 0
    print(json.dumps({"keys": keys, "seconds": seconds}))
    return 0


def _count(url: str, options: dict[str, Any]) -> tuple[int, float]:
    """(1 if something is there, else 0; seconds without importing libraries)."""
    import fsspec

    protocol = url.partition("://")[0]
    s3 = protocol in {"s3", "s3a"}
    if s3:
        options = {
            "config_kwargs": {"connect_timeout": 5, "retries": {"max_attempts": 1}}
        } | options
    filesystem = fsspec.filesystem(protocol, **options)
    begin = time.monotonic()
    if s3:
        # s3fs's own ls asks for every key of a directory.
        bucket, _, prefix = url.partition("://")[2].partition("/")
        answer = filesystem.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1)
        found = bool(answer.get("KeyCount", len(answer.get("Contents", ()))))
    else:
        found = _has_entry(filesystem, url)
    return int(found), time.monotonic() - begin


def _has_entry(filesystem: Any, url: str) -> bool:
    return filesystem.isfile(url) or bool(filesystem.ls(url, detail=False))


def _why(error: BaseException) -> str:
    text = " ".join(str(error).split()) or repr(error)
    return f"{type(error).__name__}: {text[:300]}"


def _todo(error: BaseException) -> str:
    text = f"{type(error).__name__} {error}".lower()
    if isinstance(error, ImportError):
        return "Install the fsspec library of this scheme"
    if isinstance(error, PermissionError) or any(
        word in text for word in ("access", "signature", "credential")
    ):
        return "Look at the key and secret, and what they may list"
    if isinstance(error, FileNotFoundError) or "nosuchbucket" in text:
        return "Look at bucket and prefix in mountPoint"
    return "Look at endpoint_url, network and proxies"


if __name__ == "__main__":
    sys.exit(main())
