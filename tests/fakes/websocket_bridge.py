"""The API server's side of a port-forward: WebSocket frames of channel.k8s.io from and to TCP."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import socket
import struct
import threading
from typing import BinaryIO

MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
PROTOCOL = "v4.channel.k8s.io"
BINARY, CLOSE = 0x2, 0x8
DATA, ERROR = b"\x00", b"\x01"


def accept_key(key: str) -> str:
    digest = hashlib.sha1(f"{key}{MAGIC}".encode()).digest()
    return base64.b64encode(digest).decode()


def frame(payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return bytes([0x80 | BINARY, size]) + payload
    if size < 1 << 16:
        return bytes([0x80 | BINARY, 126]) + struct.pack(">H", size) + payload
    return bytes([0x80 | BINARY, 127]) + struct.pack(">Q", size) + payload


def read_frame(stream: BinaryIO) -> tuple[int, bytes]:
    """(opcode, payload) of a client's frame, which is masked."""
    head = stream.read(2)
    if len(head) < 2:
        return CLOSE, b""
    size = head[1] & 0x7F
    if size == 126:
        (size,) = struct.unpack(">H", stream.read(2))
    elif size == 127:
        (size,) = struct.unpack(">Q", stream.read(8))
    mask = stream.read(4)
    payload = stream.read(size)
    return head[0] & 0x0F, bytes(b ^ mask[k % 4] for k, b in enumerate(payload))


def bridge(stream: BinaryIO, out: BinaryIO, port: int, target: tuple[str, int]) -> None:
    """Until one of the two sides closes."""
    with socket.create_connection(target, 5) as pod:
        sending = threading.Lock()

        def send(channel: bytes, data: bytes) -> None:
            with sending, contextlib.suppress(OSError, ValueError):
                out.write(frame(channel + data))
                out.flush()

        for channel in (DATA, ERROR):
            send(channel, struct.pack("<H", port))

        def answers() -> None:
            with contextlib.suppress(OSError):
                while data := pod.recv(1 << 16):
                    send(DATA, data)
            with sending, contextlib.suppress(OSError, ValueError):
                out.write(bytes([0x80 | CLOSE, 0]))
                out.flush()

        thread = threading.Thread(target=answers, daemon=True)
        thread.start()
        while True:
            opcode, payload = read_frame(stream)
            if opcode == CLOSE:
                break
            if opcode == BINARY and payload[:1] == DATA:
                pod.sendall(payload[1:])
        with contextlib.suppress(OSError):
            pod.shutdown(socket.SHUT_RDWR)
        thread.join(5)
