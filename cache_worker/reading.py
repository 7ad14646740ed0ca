"""Who reads what: turns what connections tell into the streams and chunk reads of the policy.

A stream is one job's reads of one version: all connections that name the same reader, else the one
connection (a mount), else a peer that asks for its own readers. Pieces of a chunk that follow each
other are one read of it. What is read of big files without asking us is not known, and not guessed.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from cache_worker.hotness import units
from cacheop.api.chunk import chunk_span, chunks_of_span

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from cache_worker.eviction.policy import Policy
    from cache_worker.versions import Version

IDLE_JOBS = 16
"""Jobs without a connection that are remembered: loader processes end with each epoch."""
OPEN_CHUNKS = 32
"""Chunks of a stream of which further pieces may come."""


class _Stream:
    """What is known of one besides what the policy knows."""

    __slots__ = ("_left", "connections", "name")

    def __init__(self, name: int) -> None:
        self.name = name
        self.connections: set[Hashable] = set()
        self._left: dict[int, int] = {}  # slot -> bytes that are not read yet, oldest first

    def begins(self, slot: int, part: int, length: int) -> bool:
        """Whether this is a new read of the chunk, not another piece of the last one."""
        left = self._left.pop(slot, 0)
        goes_on = 0 < part <= left
        left = left - part if goes_on else length - part
        if left > 0:
            self._left[slot] = left
            if len(self._left) > OPEN_CHUNKS:
                del self._left[next(iter(self._left))]
        return not goes_on


class Reading:
    """Told by the worker's operations; on the loop."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._names = count(1)
        self._streams: dict[tuple[Hashable, str], _Stream] = {}
        self.heard: Callable[[str, Version, Sequence[int]], None] | None = None
        """Is told too: the reader and the chunks read."""

    def use(self, policy: Policy) -> None:
        """Tell another one; what the one before has learnt is lost."""
        self._policy = policy
        self._streams.clear()

    def read(
        self,
        connection: Hashable,
        reader: str,
        version: Version,
        row: int,
        offset: int,
        length: int,
    ) -> None:
        """A span is asked for, whether it is here or not. To be told before it is looked for."""
        size, first = version.index.size(row), version.slots.first_slot(row)
        stream = self._stream(connection, reader, version)
        slots, parts = [], []
        for chunk in chunks_of_span(size, offset, max(0, min(length, size - offset))):
            start, chunk_bytes = chunk_span(size, chunk)
            part = min(offset + length, start + chunk_bytes) - max(offset, start)
            if stream.begins(first + chunk, part, chunk_bytes):
                slots.append(first + chunk)
                parts.append(units(part, chunk_bytes))
        if slots:
            self._policy.read(stream.name, slots, parts)
            if self.heard is not None:
                self.heard(reader, version, slots)

    def touched(
        self, connection: Hashable, reader: str, version: Version, rows: Mapping[int, int]
    ) -> None:
        """Files were read without asking us, in this order. Which part of big ones is unknown."""
        index, first_slot = version.index, version.slots.first_slot
        slots: list[int] = []
        for row, times in rows.items():
            size = index.size(row)
            if len(chunks_of_span(size, 0, size)) == 1:
                slots += [first_slot(row)] * min(times, 2)  # more says no more of a pass
        if slots:
            self._policy.read(self._stream(connection, reader, version).name, slots)
            if self.heard is not None:
                self.heard(reader, version, slots)

    def asked(self, node: str, version: Version, slot: int) -> None:
        """A peer wants a chunk for its readers."""
        self._policy.read(self._stream(node, "", version).name, [slot])

    def planned(
        self,
        connection: Hashable,
        reader: str,
        version: Version,
        slots: Sequence[int],
        at: Sequence[int],
        ranks: int,
    ) -> None:
        """A job tells what it will read, at these positions of its order."""
        self._policy.planned(self._stream(connection, reader, version).name, slots, at, ranks)

    def reached(self, connection: Hashable, reader: str, version: Version, position: int) -> None:
        """A job tells how far it is in its order."""
        self._policy.reached(self._stream(connection, reader, version).name, position)

    def unplanned(self, connection: Hashable, reader: str, version: Version) -> None:
        """What a job told is not to be believed any more."""
        stream = self._streams.get((reader or connection, version.name))
        if stream is not None:
            self._policy.unplanned(stream.name)

    def closed(self, connection: Hashable) -> None:
        """The stream of one connection ends with it; a job may come back."""
        mine = [key for key in self._streams if key[0] == connection]
        for stream in self._streams.values():
            stream.connections.discard(connection)
        idle = [key for key, stream in self._streams.items() if not stream.connections]
        for key in {*mine, *idle[: max(0, len(idle) - IDLE_JOBS)]}:
            self._policy.left(self._streams.pop(key).name)

    def _stream(self, connection: Hashable, reader: str, version: Version) -> _Stream:
        key = (reader or connection, version.name)
        stream = self._streams.get(key)
        if stream is None:
            stream = self._streams[key] = _Stream(next(self._names))
            self._policy.joined(stream.name, version.slots_range())
        stream.connections.add(connection)
        return stream
