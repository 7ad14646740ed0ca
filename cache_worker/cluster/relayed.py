"""The last chunks that found no room here, in memory: whoever reads one in pieces gets it once.

What a version calls a chunk never changes, so nothing here can be out of date.
"""

from __future__ import annotations

from collections import OrderedDict

LIMIT_BYTES = 32 << 20

Key = tuple[str, int, int]
"""Version, row, chunk."""
Relay = tuple[memoryview, int | None]
"""Bytes and, if it is known, their checksum."""


class Relayed:
    """At most `limit_bytes`; what was asked for longest ago goes first."""

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._kept: OrderedDict[Key, Relay] = OrderedDict()
        self._bytes = 0

    def get(self, key: Key) -> Relay | None:
        """The chunk, if it is here."""
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
        return found

    def keep(self, key: Key, data: memoryview, checksum: int | None) -> None:
        """Keep a chunk for a while."""
        self.drop(key)
        self._kept[key] = data, checksum
        self._bytes += len(data)
        while self._bytes > self._limit_bytes:
            self.drop(next(iter(self._kept)))

    def drop(self, key: Key) -> None:
        """Keep it no longer."""
        found = self._kept.pop(key, None)
        if found is not None:
            self._bytes -= len(found[0])
