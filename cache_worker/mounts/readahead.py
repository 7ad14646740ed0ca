"""Which chunks to ask for before a reader gets to them. Pure.

A reader that runs through a big file soon wants its next chunks; one that jumps, goes backwards or
only looks at a header does not. The longer a run, the deeper: never more ahead than was read, so a
reader that stops has cost the origin at most twice what it wanted. Offsets need not come in perfect
order: the kernel sends several reads at once.
"""

from __future__ import annotations

from dataclasses import dataclass

from cacheop.api.chunk import CHUNK_BYTES, chunk_count

SLACK_BYTES = 8 << 20  # how far reads of one stream may be apart: what the kernel reads ahead
STREAM_BYTES = 4 << 20  # read in a run before it counts as a stream
AHEAD_CHUNKS_MAX = 8  # fills 600 MB/s from an origin that takes 0.1 s to answer
FILES_MAX = 256  # with streams, the latest
FILE_STREAMS_MAX = 4  # readers of one file at different places


@dataclass(frozen=True, slots=True)
class Stream:
    """One run of reads through a file."""

    end: int = 0
    """Where the run's furthest read ended."""
    run_bytes: int = 0
    """How far it has come."""
    asked: int = -1
    """The highest chunk asked for ahead of the reader."""


def advance(stream: Stream, size_bytes: int, offset: int, length: int) -> tuple[Stream, range]:
    """The stream after a read of [offset, offset+length), and the chunks to ask for now."""
    end = offset + length
    if abs(offset - stream.end) > SLACK_BYTES:
        return Stream(end, length), range(0)
    if end <= stream.end:
        return stream, range(0)
    run_bytes = stream.run_bytes + end - stream.end
    here = (end - 1) // CHUNK_BYTES
    ahead = min(max(run_bytes // CHUNK_BYTES, 1), AHEAD_CHUNKS_MAX)
    if run_bytes < STREAM_BYTES:
        ahead = 0
    last = min(here + ahead, chunk_count(size_bytes) - 1)
    first = max(here, stream.asked) + 1
    asked = max(stream.asked, last) if ahead else stream.asked
    return Stream(end, run_bytes, asked), range(first, last + 1)


class Streams:
    """The streams of a mount's latest files, several of one file. For one thread."""

    def __init__(self) -> None:
        self._files: dict[int, list[Stream]] = {}  # least recently read first, both

    def read(self, row: int, size_bytes: int, offset: int, length: int) -> range:
        """The chunks of the file at `row` to ask for, now that this is read.

        To be called for every read of an incomplete file, also for those that find their bytes:
        a reader that waits for nothing is the one that is to stay ahead of.
        """
        if size_bytes <= CHUNK_BYTES:
            return range(0)
        streams = self._files.pop(row, [])
        near = min(streams, key=lambda found: abs(offset - found.end), default=None)
        if near is None or abs(offset - near.end) > SLACK_BYTES:
            near = Stream()
            del streams[: max(0, len(streams) + 1 - FILE_STREAMS_MAX)]
        else:
            streams.remove(near)
        after, chunks = advance(near, size_bytes, offset, length)
        self._files[row] = [*streams, after]
        if len(self._files) > FILES_MAX:
            del self._files[next(iter(self._files))]
        return chunks
