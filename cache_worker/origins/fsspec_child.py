"""`python -m cache_worker fsspec-origin FD`: reads by fsspec; the worker imports none of it.

Speaks the frames of cacheop.api.wire over the socket FD, in any order. Operations: `open` (url,
options) first, then `stat` and `read` (key, size, etag, version_id, mtime_ns, offset, length).
Ends when the socket does, so it never outlives the worker.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from cacheop.api import fsspec_info
from cacheop.api.errors import (
    CacheopError,
    CredentialError,
    NotFoundError,
    OriginChanged,
    OriginError,
    UserError,
    to_wire,
)
from cacheop.api.wire import ERROR, RESPONSE, Decoder, Frame, encode_head

if TYPE_CHECKING:
    from collections.abc import Mapping

READS_AT_ONCE = 16
RECEIVE_BYTES = 1 << 16
# What s3fs passes on to botocore when the Dataset says nothing: its own 60 s outlast any reader.
S3_TIMEOUTS = {"connect_timeout": 5, "read_timeout": 10, "retries": {"max_attempts": 2}}


def main(arguments: list[str]) -> int:
    """Serve until the worker closes its end."""
    connection = socket.socket(fileno=int(arguments[0]))
    server = _Server(connection)
    decoder = Decoder()
    try:
        while data := connection.recv(RECEIVE_BYTES):
            for frame in decoder.feed(data):
                server.take(frame)
    except OSError:
        pass  # the worker is gone: nobody is left to tell
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # threads may be in the middle of reads that nobody waits for


def open_filesystem(url: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    """(file system, path of `url` in it without a slash at the end). UserError if it cannot be."""
    import fsspec

    scheme = url.partition("://")[0]
    given = {**options, "skip_instance_cache": True, "use_listings_cache": False}
    if scheme in {"s3", "s3a"}:
        given["config_kwargs"] = {**S3_TIMEOUTS, **given.get("config_kwargs", {})}
    try:
        cls = fsspec.get_filesystem_class(scheme)
        if scheme in {"http", "https"}:
            return cls(**given), url.rstrip("/")
        found = {**cls._get_kwargs_from_urls(url), **given}
        return cls(**found), cls._strip_protocol(url).rstrip("/")
    except ImportError as error:
        raise UserError(
            f"cannot open {url}: {error}", hint="Install that package beside the worker"
        ) from error
    except ValueError as error:
        raise UserError(
            f"cannot open {url}: {error}", hint="Check its scheme and options"
        ) from error
    except TypeError as error:
        raise UserError(f"an option of {url} is wrong: {error}") from error


class _Server:
    """One file system for one worker. Owned by the main thread; reads run in the pool."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._send_lock = threading.Lock()
        self._pool = ThreadPoolExecutor(READS_AT_ONCE)
        self._filesystem: Any = None
        self._root = ""
        self._url = ""

    def take(self, frame: Frame) -> None:
        """Answer `frame`, now or from the pool."""
        if frame.meta.get("op") == "open":
            self._answer(frame)
        else:
            self._pool.submit(self._answer, frame)

    def _answer(self, frame: Frame) -> None:
        payload: bytes = b""
        kind, meta = RESPONSE, dict[str, Any]()
        try:
            payload = self._run(frame.meta)
        except CacheopError as error:
            kind, meta = ERROR, dict(to_wire(error))
        except Exception as error:  # noqa: BLE001 - libraries of any kind raise anything
            kind, meta = ERROR, dict(to_wire(translated(error, frame.meta, self._url)))
        head = encode_head(kind, frame.request_id, meta, len(payload))
        try:
            with self._send_lock:
                self._connection.sendall(head)
                self._connection.sendall(payload)
        except OSError:
            pass  # the worker is gone; the main thread ends the process

    def _run(self, meta: dict[str, Any]) -> bytes:
        if meta["op"] == "open":
            self._url = meta["url"]
            self._filesystem, self._root = open_filesystem(meta["url"], meta["options"])
            return b""
        if meta["op"] == "check":
            self._check()
            return b""
        return self._read(meta)

    def _check(self) -> None:
        info = self._filesystem.info(self._root)
        if info.get("type") == "directory" and not self._filesystem.ls(self._root, detail=False):
            raise UserError(f"nothing is below {self._url}", hint="Check the path")

    def _path(self, key: str) -> str:
        below = f"{self._root}/{key}"
        if key == self._root.rsplit("/", 1)[-1] and not self._filesystem.exists(below):
            return self._root
        return below

    def _read(self, meta: dict[str, Any]) -> bytes:
        path = self._path(meta["key"])
        version = {"version_id": meta["version_id"]} if meta["version_id"] else {}
        self._compare(path, meta, version)
        start, length = meta["offset"], meta["length"]
        body: bytes = self._filesystem.cat_file(path, start=start, end=start + length, **version)
        if len(body) != length:
            raise OriginError(
                f"{meta['key']!r} of {self._url}: {len(body)} bytes came instead of {length}"
            )
        if not version:
            self._compare(path, meta, version)
        return body

    def _compare(self, path: str, meta: dict[str, Any], version: dict[str, str]) -> None:
        """Fsspec has no conditional reads, so the file is looked at before and after."""
        self._filesystem.invalidate_cache()
        info = self._filesystem.info(path, **version)
        found = fsspec_info.etag(info)
        if info.get("size") != meta["size"]:
            what = f"its size is {info.get('size')}, not {meta['size']} bytes"
        elif meta["etag"] and found and found != meta["etag"]:
            what = f"its etag is {found}, not {meta['etag']}"
        elif meta["mtime_ns"] and not meta["etag"] and not version:
            if _seconds(fsspec_info.mtime_ns(info)) == _seconds(meta["mtime_ns"]):
                return
            what = "it was modified"
        else:
            return
        raise _changed(meta["key"], self._url, what)


def _seconds(nanoseconds: int) -> int:
    # Listings and headers of the same object often differ below the second.
    return nanoseconds // 1_000_000_000


def _changed(key: str, url: str, what: str) -> OriginChanged:
    return OriginChanged(
        f"{key!r} of {url} is no longer the object in the manifest: {what}",
        hint="Run `cacheop refresh` to make a new version",
    )


def translated(error: Exception, meta: Mapping[str, Any], url: str) -> CacheopError:
    """`error` of a library in the words of the one tree."""
    key = meta.get("key")
    what = f"{key!r} of {url}" if key else url
    reason = str(error).split("\n", 1)[0] or type(error).__name__
    if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
        if key:
            return _changed(key, url, "it is gone")
        return NotFoundError(f"{url} does not exist", hint="Check the path in mountPoint")
    if isinstance(error, PermissionError) or type(error).__name__ == "NoCredentialsError":
        return CredentialError(
            f"the origin refuses us {what}: {reason}",
            hint="Check the credentials of this mountPoint and that they may list and read it",
        )
    return OriginError(
        f"the origin failed for {what}: {type(error).__name__}: {reason}",
        hint="Check that this machine can reach it; what is cached can be read",
    )
