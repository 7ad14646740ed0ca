"""Who waits for a peer, and what goes to it in one request. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from cache_worker.peers.messages import BATCH_BYTES, BATCH_CHUNKS

SMALL_BYTES = 512 << 10
"""Up to this much goes in batches; more goes alone, so that several connections share the work."""


class Waiting(Protocol):
    """Something that waits its turn."""

    number: int
    """Larger for who came later."""
    length: int
    """Bytes that the answer will have."""
    gone: bool
    """Nobody wants it any more."""


W = TypeVar("W", bound=Waiting)


@dataclass(slots=True)
class Line(Generic[W]):
    """What waits for one peer, in order of arrival."""

    batched: bool
    _small: deque[W] = field(default_factory=deque)
    _large: deque[W] = field(default_factory=deque)

    def add(self, item: W) -> None:
        """Put at the end."""
        (self._small if self.batched and item.length <= SMALL_BYTES else self._large).append(item)

    def take(self, room_bytes: int) -> list[W]:
        """The next request: the first in line, and if it is small all small ones that fit.

        Nothing when there is no room for the first.
        """
        small, large = _first(self._small), _first(self._large)
        if large is not None and (small is None or large.number < small.number):
            return [self._large.popleft()] if large.length <= room_bytes else []
        room_bytes = min(room_bytes, BATCH_BYTES)
        taken: list[W] = []
        while len(taken) < BATCH_CHUNKS and (first := _first(self._small)) is not None:
            if first.length > room_bytes:
                break
            room_bytes -= first.length
            taken.append(self._small.popleft())
        return taken

    def take_all(self) -> list[W]:
        """Everybody; the line is empty then."""
        found = [item for item in (*self._small, *self._large) if not item.gone]
        self._small.clear()
        self._large.clear()
        return found

    def __bool__(self) -> bool:
        return _first(self._small) is not None or _first(self._large) is not None


def _first(line: deque[W]) -> W | None:
    while line and line[0].gone:
        line.popleft()
    return line[0] if line else None
