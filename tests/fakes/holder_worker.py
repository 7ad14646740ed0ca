"""What a holder needs around it: a worker that answers `publish`, and a FUSE server of one file."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from typing import TYPE_CHECKING, Any

from cacheop.api import names, wire

if TYPE_CHECKING:
    from pathlib import Path

VERSION = "ab12"
FILE_NODE = 2


class PublishWorker:
    """Answers `publish` as `answer` says; an exception in it drops the connection."""

    def __init__(self, root: Path, **answer: Any) -> None:
        self.asked = 0
        self.answer = {
            "version": VERSION,
            "rows": 4,
            "bytes": 1000,
            "complete": False,
            "cached_percentage": 0.0,
            "mode": "Auto",
            "grace_seconds": 5.0,
            "data": names.data_path(VERSION),
            **answer,
        }
        self._listener = socket.socket(socket.AF_UNIX)
        directory = os.open(root, os.O_PATH)
        (root / names.WORKER_SOCKET).unlink(missing_ok=True)
        self._listener.bind(f"/proc/self/fd/{directory}/{names.WORKER_SOCKET}")
        os.close(directory)
        self._listener.listen(8)
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                decoder = wire.Decoder()
                for frame in decoder.feed(connection.recv(65536)):
                    self.asked += 1
                    reply = wire.Frame(wire.RESPONSE, frame.request_id, self.answer)
                    connection.sendall(wire.encode(reply))


class OneFile:
    """Serves the root and one file, `name`, through the backing id that `ids` holds for it."""

    def __init__(self, fuse: int, ids: memoryview, name: str, size: int) -> None:
        self._fuse, self._ids, self._name, self._size = os.dup(fuse), ids, name.encode(), size
        self.initialized = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        header = struct.Struct("<IIQQIIII")
        while True:
            try:
                request = os.read(self._fuse, (1 << 20) + 4096)
            except OSError as error:
                if error.errno in (19, 103):
                    os.close(self._fuse)
                    return
                continue
            _, op, unique, node, *_ = header.unpack_from(request)
            body = self._answer(op, node, request[40:])
            if body is not None:
                code, data = body if isinstance(body, tuple) else (0, body)
                with contextlib.suppress(OSError):
                    os.write(self._fuse, struct.pack("<IiQ", 16 + len(data), -code, unique) + data)
            if op == 26:
                self.initialized.set()

    def _answer(self, op: int, node: int, body: bytes) -> bytes | tuple[int, bytes] | None:
        if op == 26:  # INIT with passthrough, one level of stacking
            flags = (1 << 0) | (1 << 5) | (1 << 22) | (1 << 30)
            return struct.pack(
                "<IIIIHHIIHHIIHH5I",
                *(
                    7,
                    41,
                    1 << 20,
                    flags,
                    64,
                    48,
                    1 << 20,
                    1,
                    256,
                    0,
                    1 << 5,
                    1,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                ),
            )[:64]
        if op == 1:
            if body.rstrip(b"\0") != self._name:
                return 2, b""
            return struct.pack("<QQQQII", FILE_NODE, 0, 9, 9, 0, 0) + self._attributes(FILE_NODE)
        if op == 3:
            return struct.pack("<QII", 9, 0, 0) + self._attributes(node)
        if op == 14:
            return struct.pack("<QIi", 0, 1 << 7, self._ids[FILE_NODE])
        if op in (18, 25, 29):
            return b""
        return None if op in (2, 42) else (38, b"")

    def _attributes(self, node: int) -> bytes:
        if node == 1:
            return struct.pack("<QQQQQQ10I", 1, *[0] * 8, 0o40555, 2, 0, 0, 0, 4096, 0)
        numbers = (node, self._size, 1, 0, 0, 0, 0, 0, 0, 0o100444, 1, 0, 0, 0, 4096, 0)
        return struct.pack("<QQQQQQ10I", *numbers)
