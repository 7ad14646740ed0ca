"""The framed protocol of docs/protocol.md, without I/O: bytes in, frames out.

A frame is a 16-byte little-endian header, a JSON object (`meta`) and raw bytes (`payload`):

    offset size  field
    0      2     magic b"CO"
    2      1     protocol version, 1
    3      1     kind: 1 request, 2 response, 3 error, 4 event (progress of a running request)
    4      4     request id, chosen by the asker, echoed in every answer
    8      4     length of meta in bytes, at most 1 MiB
    12     4     length of payload in bytes, at most 64 MiB
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cacheop.api.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAGIC = b"CO"
VERSION = 1
REQUEST, RESPONSE, ERROR, EVENT = 1, 2, 3, 4
HEADER = struct.Struct("<2sBBIII")
META_MAX_BYTES = 1 << 20
PAYLOAD_MAX_BYTES = 64 << 20
_to_json = json.JSONEncoder(separators=(",", ":")).encode  # json.dumps would make one each time


@dataclass(frozen=True, slots=True)
class Frame:
    """One message. `meta["op"]` names what a request asks for."""

    kind: int
    request_id: int
    meta: dict[str, Any] = field(default_factory=dict)
    payload: bytes | memoryview = b""


def encode_head(kind: int, request_id: int, meta: dict[str, Any], payload_bytes: int) -> bytes:
    """Header and meta of a frame whose payload of `payload_bytes` the caller sends itself."""
    body = _to_json(meta).encode()
    if len(body) > META_MAX_BYTES or payload_bytes > PAYLOAD_MAX_BYTES:
        raise ProtocolError(f"frame too large: meta {len(body)} bytes, payload {payload_bytes}")
    return HEADER.pack(MAGIC, VERSION, kind, request_id, len(body), payload_bytes) + body


def encode(frame: Frame) -> bytes:
    """The whole frame as bytes."""
    head = encode_head(frame.kind, frame.request_id, frame.meta, len(frame.payload))
    return head + bytes(frame.payload)


def decode_header(header: bytes) -> tuple[int, int, int, int]:
    """(kind, request id, meta length, payload length); ProtocolError if it is not ours."""
    magic, version, kind, request_id, meta_bytes, payload_bytes = HEADER.unpack(header)
    if magic != MAGIC:
        raise ProtocolError("not a cacheop frame", hint="Is this the right port or socket?")
    if version != VERSION:
        raise ProtocolError(
            f"protocol version {version}, this side speaks {VERSION}",
            hint="Run the same cacheop version on both sides",
        )
    if (
        kind not in (REQUEST, RESPONSE, ERROR, EVENT)
        or meta_bytes > META_MAX_BYTES
        or payload_bytes > PAYLOAD_MAX_BYTES
    ):
        raise ProtocolError(f"bad frame header: kind {kind}, {meta_bytes} + {payload_bytes} bytes")
    return kind, request_id, meta_bytes, payload_bytes


def decode_meta(body: bytes | memoryview) -> dict[str, Any]:
    """The JSON object of a frame; ProtocolError for anything else."""
    try:
        meta = json.loads(bytes(body))
    except ValueError as error:
        raise ProtocolError(f"frame meta is not JSON: {error}") from error
    if not isinstance(meta, dict):
        raise ProtocolError("frame meta is not a JSON object")
    return meta


class Decoder:
    """Feeds on bytes as they arrive and gives whole frames."""

    def __init__(self, payload_max_bytes: int = PAYLOAD_MAX_BYTES) -> None:
        self._buffer = bytearray()
        self.payload_max_bytes = payload_max_bytes

    def feed(self, data: bytes | memoryview) -> Iterator[Frame]:
        """Add `data`; yield every frame that is now whole. Raises ProtocolError."""
        self._buffer += data
        while len(self._buffer) >= HEADER.size:
            kind, request_id, meta_bytes, payload_bytes = decode_header(
                bytes(self._buffer[: HEADER.size])
            )
            if payload_bytes > self.payload_max_bytes:
                raise ProtocolError(f"a payload of {payload_bytes} bytes is not expected here")
            end = HEADER.size + meta_bytes + payload_bytes
            if len(self._buffer) < end:
                return
            meta = decode_meta(bytes(self._buffer[HEADER.size : HEADER.size + meta_bytes]))
            payload = bytes(self._buffer[HEADER.size + meta_bytes : end])
            del self._buffer[:end]
            yield Frame(kind, request_id, meta, payload)
