"""The limit of a link: `sendfile` into sockets that throw away what they get, plain Python.

`python -m benchmarks.cluster.raw serve HOST:PORT FILE` answers 16-byte requests (offset, length)
with those bytes of FILE. `… get HOST:PORT CONNECTIONS COUNT LENGTH` asks COUNT times for LENGTH
bytes, the next when the last one came, and prints {"seconds", "bytes", "cpu_seconds"} as JSON.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

REQUEST = struct.Struct("<QQ")
BUFFER_BYTES = 1 << 20


def serve(address: str, path: str) -> None:
    """Until killed. Prints a line when it listens."""
    host, _, port = address.rpartition(":")
    fd = os.open(path, os.O_RDONLY)
    listener = socket.create_server((host, int(port)))
    print("listening", flush=True)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_answer, args=(connection, fd), daemon=True).start()


def _answer(connection: socket.socket, fd: int) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection, connection.makefile("rb") as requests:
        while request := requests.read(REQUEST.size):
            offset, left = REQUEST.unpack(request)
            while left:
                sent = os.sendfile(connection.fileno(), fd, offset, left)
                offset, left = offset + sent, left - sent


def get(address: str, connections: int, count: int, length: int) -> None:
    """All connections share the requests."""
    host, _, port = address.rpartition(":")
    offsets = iter(range(0, count * length, length))
    sockets = [socket.create_connection((host, int(port)), 10) for _ in range(connections)]
    threads = [threading.Thread(target=_ask, args=(s, offsets, length)) for s in sockets]
    began, before = time.monotonic(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds, cpu = time.monotonic() - began, time.process_time() - before
    print(json.dumps({"seconds": seconds, "bytes": count * length, "cpu_seconds": cpu}))


def _ask(connection: socket.socket, offsets: Iterator[int], length: int) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    buffer = bytearray(BUFFER_BYTES)
    view = memoryview(buffer)
    for offset in offsets:
        connection.sendall(REQUEST.pack(offset, length))
        left = length
        while left:
            got = connection.recv_into(view[: min(left, BUFFER_BYTES)])
            if not got:
                sys.exit("the other side hung up")
            left -= got


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2], sys.argv[3])
    else:
        get(sys.argv[2], *map(int, sys.argv[3:]))
