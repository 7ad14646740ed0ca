"""A working worker over a dict of bytes: real sockets, a real store on disk, no origin, no mount.

It fills what is read, as the real one does, and can be told to have no room, to be slow, to drop
connections or to evict. One thread per connection; `close` ends them all.
"""

from __future__ import annotations

import contextlib
import hmac
import mmap
import os
import secrets
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING, Any

from cache_worker.manifest import Builder, MountPoint
from cache_worker.origins import Listing
from cacheop.api import names, wire
from cacheop.api.chunk import CHUNK_BYTES, chunk_count, chunk_span, chunks_of_span
from cacheop.api.errors import CacheopError, CredentialError, NotFoundError, to_wire
from cacheop.api.index import Index
from cacheop.api.table import (
    ABSENT,
    CAPACITY,
    COMPLETE,
    FILE_BYTES,
    GENERATION,
    HEADER,
    MAGIC,
    NO_SLOT,
    PRESENT,
    SLOTS_HEADER,
    SLOTS_MAGIC,
    STATE_MASK,
    columns,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Self

MTIME_NS = 1_700_000_000_000_000_000


def build_index(files: Mapping[str, bytes]) -> bytes:
    """The index of a version with those files, by the real builder."""
    builder = Builder((MountPoint("s3://fake/", "/"),))
    paths = sorted(files)
    etags = [f'"{len(files[p])}-{hash(files[p]) & 0xFFFF:x}"' for p in paths]
    sizes = [len(files[p]) for p in paths]
    builder.add(0, Listing(paths, sizes, [MTIME_NS] * len(paths), etags, [""] * len(paths)))
    return b"".join(builder.finish().index_pieces())


class FakeWorker:
    """Serves one Dataset below `root`. Use as a context manager."""

    def __init__(
        self,
        root: Path,
        files: Mapping[str, bytes],
        *,
        namespace: str = "default",
        dataset: str = "demo",
        token: str = "",
    ) -> None:
        self.root, self.namespace, self.dataset, self.token = root, namespace, dataset, token
        self.requests: list[dict[str, Any]] = []
        self.room = True
        self.delay_seconds = 0.0
        self.evict_after_answers = 0  # how many more times a fill is undone at once
        self.error: CacheopError | None = None
        self.indexing = False  # as before its first version
        self.endpoint = ""
        self._lock = threading.Lock()  # guards store and versions
        self._contents: dict[str, dict[int, bytes]] = {}
        self._indexes: dict[str, Index] = {}
        self._slots: dict[str, list[int]] = {}
        self._next_slot = 1
        self._servers: list[socket.socket] = []
        self._connections: set[socket.socket] = set()
        self._bound: list[tuple[socket.socket, str]] = []
        self._threads: list[threading.Thread] = []
        (root / names.MANIFEST_DIR).mkdir(parents=True, exist_ok=True)
        (root / "client").mkdir(exist_ok=True)
        fd = os.open(root / names.CHUNK_TABLE, os.O_RDWR | os.O_CREAT)
        os.ftruncate(fd, FILE_BYTES)
        os.pwrite(fd, HEADER.pack(MAGIC, CAPACITY), 0)
        self._map = mmap.mmap(fd, FILE_BYTES)
        os.close(fd)
        self._columns = columns(memoryview(self._map))
        self.version = self.add_version(files)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- control by the test ----------------------------------------------------------------------

    def add_version(self, files: Mapping[str, bytes]) -> str:
        """List `files` as a new version, which becomes the current one."""
        data = build_index(files)
        index = Index(data)
        first = [NO_SLOT] * index.rows
        contents: dict[int, bytes] = {}
        for row in range(index.rows):
            if not index.is_directory(row):
                first[row] = self._next_slot
                self._next_slot += chunk_count(index.size(row))
                contents[row] = files[index.path(row)]
        rows = sorted(contents, key=lambda row: first[row])
        slots = SLOTS_HEADER.pack(SLOTS_MAGIC, index.rows, len(rows))
        slots += struct.pack(f"<{len(first)}I", *first) + struct.pack(f"<{len(rows)}I", *rows)
        (self.root / names.index_path(index.version)).write_bytes(data)
        (self.root / names.slots_path(index.version)).write_bytes(slots)
        with self._lock:
            self._indexes[index.version], self._slots[index.version] = index, first
            self._contents[index.version] = contents
            self.version = index.version
        return index.version

    def fill_all(self) -> None:
        """Cache the whole current version."""
        for row, content in self._contents[self.version].items():
            self._fill(self.version, row, range(chunk_count(len(content))))

    def fill(self, path: str, *chunks: int) -> None:
        """Cache those chunks of a file."""
        self._fill(self.version, self._row(path), chunks)

    def evict(self, path: str) -> None:
        """Drop a file, as the real store does: flags first, then the name."""
        row = self._row(path)
        with self._lock:
            first = self._slots[self.version][row]
            self._columns["file"][first] = 0
            for slot in range(first, first + chunk_count(len(self._contents[self.version][row]))):
                state = self._columns["state"][slot]
                self._columns["state"][slot] = ((state & ~STATE_MASK) + GENERATION) & 0xFF | ABSENT
            with contextlib.suppress(FileNotFoundError):
                self._file(self.version, row).unlink()

    def is_complete(self, path: str) -> bool:
        return self._columns["file"][self._slots[self.version][self._row(path)]] == COMPLETE

    def bound_versions(self) -> list[str]:
        """The versions that open connections keep in use."""
        return [version for sock, version in list(self._bound) if sock in self._connections]

    def count(self, op: str) -> int:
        return sum(request.get("op") == op for request in list(self.requests))

    def start(self) -> None:
        path = self.root / names.CLIENT_SOCKET
        path.unlink(missing_ok=True)
        unix = socket.socket(socket.AF_UNIX)
        directory = os.open(path.parent, os.O_PATH)
        unix.bind(f"/proc/self/fd/{directory}/{path.name}")
        os.close(directory)
        self._serve(unix)
        if self.token:
            tcp = socket.socket()
            tcp.bind(("127.0.0.1", 0))
            self.endpoint = f"127.0.0.1:{tcp.getsockname()[1]}"
            self._serve(tcp)

    def close(self) -> None:
        """As if the process had ended; the store stays, `start` serves it again."""
        for sock in [*self._servers, *self._connections]:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join(5)
        self._servers, self._threads = [], []
        self._connections.clear()

    def _row(self, path: str) -> int:
        row = self._indexes[self.version].resolve(path)
        assert row is not None, path
        return row

    # -- the store --------------------------------------------------------------------------------

    def _file(self, version: str, row: int) -> Path:
        return self.root / names.data_path(version) / self._indexes[version].path(row)

    def _fill(self, version: str, row: int, chunks: Any) -> None:
        with self._lock:
            content, first = self._contents[version][row], self._slots[version][row]
            path = self._file(version, row)
            path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            if os.fstat(fd).st_size != len(content):
                os.ftruncate(fd, len(content))
            for chunk in chunks:
                offset, length = chunk_span(len(content), chunk)
                os.pwrite(fd, content[offset : offset + length], offset)
                state = self._columns["state"]
                state[first + chunk] = state[first + chunk] & ~STATE_MASK | PRESENT
            os.close(fd)
            slots = range(first, first + chunk_count(len(content)))
            if all(self._columns["state"][slot] & STATE_MASK == PRESENT for slot in slots):
                self._columns["file"][first] = COMPLETE

    # -- the protocol -----------------------------------------------------------------------------

    def _serve(self, server: socket.socket) -> None:
        server.listen(64)
        self._servers.append(server)
        self._thread(self._accept, server)

    def _thread(self, function: Any, *args: Any) -> None:
        thread = threading.Thread(target=function, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = server.accept()
                self._connections.add(sock)
                self._thread(self._connection, sock)

    def _connection(self, sock: socket.socket) -> None:
        same_machine = sock.family == socket.AF_UNIX
        allowed = same_machine
        nonce = secrets.token_hex(8)
        decoder = wire.Decoder()
        with contextlib.suppress(OSError):
            if not same_machine:
                challenge = {"op": "challenge", "nonce": nonce}
                sock.sendall(wire.encode(wire.Frame(wire.EVENT, 0, challenge)))
            while data := sock.recv(65536):
                for frame in decoder.feed(data):
                    if not allowed:
                        self._authenticate(sock, frame, nonce)
                        allowed = True
                        continue
                    self.requests.append(dict(frame.meta))
                    sock.sendall(wire.encode(self._answer(sock, frame, same_machine)))
        self._connections.discard(sock)
        sock.close()

    def _authenticate(self, sock: socket.socket, frame: wire.Frame, nonce: str) -> None:
        mac = hmac.new(self.token.encode(), f"client:{nonce}".encode(), "sha256").hexdigest()
        if frame.meta.get("op") == "auth" and hmac.compare_digest(mac, frame.meta.get("mac", "")):
            sock.sendall(wire.encode(wire.Frame(wire.RESPONSE, frame.request_id)))
            return
        error = to_wire(CredentialError("wrong token", hint="Check CACHEOP_TOKEN"))
        sock.sendall(wire.encode(wire.Frame(wire.ERROR, frame.request_id, error)))
        raise OSError("refused")

    def _answer(self, sock: socket.socket, frame: wire.Frame, same_machine: bool) -> wire.Frame:
        try:
            meta, payload = self._run(sock, frame.meta, same_machine)
        except CacheopError as error:
            return wire.Frame(wire.ERROR, frame.request_id, to_wire(error))
        return wire.Frame(wire.RESPONSE, frame.request_id, meta, payload)

    def _run(
        self, sock: socket.socket, meta: dict[str, Any], same_machine: bool
    ) -> tuple[dict[str, Any], bytes]:
        match meta["op"]:
            case "hello":
                return {
                    "namespace": self.namespace, "dataset": self.dataset, "node": "node-0",
                    "version": self.version, "phase": "Ready", "pid": os.getpid(),
                }, b""  # fmt: skip
            case "bind":
                version = meta["version"] or ("" if self.indexing else self.version)
                self._known(version)
                self._bound.append((sock, version))
                return {
                    "version": version,
                    "index": names.index_path(version),
                    "slots": names.slots_path(version),
                    "table": names.CHUNK_TABLE,
                    "data": names.data_path(version),
                }, b""
            case "manifest":
                data = (self.root / names.index_path(meta["version"])).read_bytes()
                return {"size": len(data)}, data[meta["offset"] :][: meta["length"]]
            case "read":
                return self._read(meta, same_machine)
            case _:
                return {}, b""

    def _known(self, version: str) -> None:
        if version not in self._indexes:
            raise NotFoundError(f"there is no version {version}", hint="See `cacheop versions`")

    def _read(self, meta: dict[str, Any], same_machine: bool) -> tuple[dict[str, Any], bytes]:
        version, row = meta["version"], meta["row"]
        self._known(version)
        time.sleep(self.delay_seconds)
        if self.error is not None:
            raise self.error
        content = self._contents[version][row]
        data = content[meta["offset"] : meta["offset"] + meta["length"]]
        if not self.room:
            return {"present": False}, data
        self._fill(version, row, chunks_of_span(len(content), meta["offset"], meta["length"]))
        if self.evict_after_answers:
            self.evict_after_answers -= 1
            self.evict(self._indexes[version].path(row))
        if meta.get("inline") or not same_machine:
            return {"present": False}, data
        return {"present": True}, b""


__all__ = ["CHUNK_BYTES", "FakeWorker", "build_index"]
