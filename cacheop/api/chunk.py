"""Chunks: the unit of placement, transfer and checksum. Pure arithmetic.

A file up to 8 MiB is one chunk; a larger one is cut into pieces of 8 MiB, the last one shorter.
An empty file has one chunk of no bytes, so that every file owns at least one slot.
"""

from __future__ import annotations

CHUNK_BYTES = 8 << 20


def chunk_count(size_bytes: int) -> int:
    """How many chunks a file of `size_bytes` has; at least 1."""
    return max(1, -(-size_bytes // CHUNK_BYTES))


def chunk_span(size_bytes: int, chunk: int) -> tuple[int, int]:
    """(offset, length) of chunk number `chunk` in a file of `size_bytes`."""
    offset = chunk * CHUNK_BYTES
    return offset, min(CHUNK_BYTES, size_bytes - offset)


def chunks_of_span(size_bytes: int, offset: int, length: int) -> range:
    """The chunk numbers that bytes [offset, offset+length) of a file touch, clipped to its end."""
    end = min(offset + length, size_bytes)
    if end <= offset:
        return range(0)
    return range(offset // CHUNK_BYTES, (end - 1) // CHUNK_BYTES + 1)
