"""Which chunks to ask for before a reader gets to them. Pure.

A reader that runs through a big file soon wants its next chunk; one that jumps, or only looks at a
header, does not. Offsets need not come in perfect order: the kernel sends several reads at once.
"""

from __future__ import annotations

from dataclasses import dataclass

from cacheop.api.chunk import CHUNK_BYTES, chunk_count

SLACK_BYTES = 4 << 20  # how far reads of one stream may be out of order
STREAM_BYTES = 4 << 20  # read in a run before it counts as a stream
FAST_BYTES = 16 << 20  # from here on two chunks ahead


@dataclass(frozen=True, slots=True)
class Stream:
    """One file's latest run of reads."""

    end: int = 0
    """Where the run's furthest read ended."""
    run_bytes: int = 0
    asked: int = -1
    """The highest chunk asked for ahead of the reader."""


def advance(stream: Stream, size_bytes: int, offset: int, length: int) -> tuple[Stream, range]:
    """The stream after a read of [offset, offset+length), and the chunks to ask for now."""
    end = offset + length
    if abs(offset - stream.end) > SLACK_BYTES:
        return Stream(end, length), range(0)
    run_bytes = stream.run_bytes + length
    here = max(end - 1, 0) // CHUNK_BYTES
    ahead = 0 if run_bytes < STREAM_BYTES else 1 if run_bytes < FAST_BYTES else 2
    last = min(here + ahead, chunk_count(size_bytes) - 1)
    first = max(here, stream.asked) + 1
    asked = max(stream.asked, last) if ahead else stream.asked
    return Stream(max(end, stream.end), run_bytes, asked), range(first, last + 1)
