"""What one rank said that it will read: where it is, and what to fetch next. Pure.

Positions count all reads that were ever told, over the epochs. The cursor is how far the sampler
has come, told by itself; without that, the furthest read that was heard. Loaders read ahead and in
parallel, so reads up to LATE behind the cursor are still awaited.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from cacheop.api.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cacheop.api.plan import Reads

LATE, NEAR = 8192, 4096
AHEAD_OF_TOLD = 256
"""Reads that may be heard before the sampler's thread tells that they were given."""
JUDGED_CHUNKS, WASTED_SHARE = 256, 0.5


class Due(NamedTuple):
    """A chunk to fetch."""

    position: int
    row: int
    chunk: int
    slot: int


class _Epoch:
    __slots__ = ("first", "number", "reads", "start")

    def __init__(self, number: int, start: int, first: int, reads: Reads) -> None:
        self.number = number
        self.start = start  # place in the epoch of the first read told, after a resume not 0
        self.first = first  # its position
        self.reads = reads

    @property
    def end(self) -> int:
        return self.first + len(self.reads)


class Order:
    """`chunks_of` gives the first slot and the chunks of (row, first chunk, chunks)."""

    def __init__(self, chunks_of: Callable[[int, int, int], tuple[int, range]]) -> None:
        self._chunks_of = chunks_of
        self._epochs: list[_Epoch] = []
        self._end = 0
        self.cursor = 0
        self._told = False  # whether the sampler tells how far it is
        self._near: deque[tuple[int, int]] = deque()
        """(position, slot) from LATE before the cursor to `_head`."""
        self._awaited: dict[int, list[int]] = {}
        """By slot, the positions of those that were not heard yet."""
        self._head = 0
        self._at = 0  # what is to be fetched next: position, and chunks of it that are done
        self._chunks_done = 0
        self._fetched: dict[int, int] = {}
        self.unread_bytes = 0
        """Fetched for this order and not read yet."""
        self.fetched = self.used = 0
        """Chunks, since it began."""
        self._judged = self._wasted = 0

    # -- what is told -----------------------------------------------------------------------------

    @property
    def reads(self) -> int:
        """How many are held."""
        return sum(len(epoch.reads) for epoch in self._epochs)

    @property
    def epoch(self) -> int:
        """The number of the current one; -1 when none was told."""
        return self._epochs[0].number if self._epochs else -1

    def add(self, number: int, place: int, reads: Reads, *, begin: bool) -> int:
        """More of an epoch's order, from `place` in it on; the position of the first.

        `begin`: instead of what was told of this epoch and later ones. ProtocolError: a gap.
        """
        known = self._epoch(number)
        if begin:
            self._forget_from(number)
            known = None
        elif known is None or place != known.start + len(known.reads):
            raise ProtocolError(f"the plan's epoch {number} has nothing before read {place}")
        if known is None or known.end != self._end:
            known = _Epoch(number, place, self._end, reads)
            self._epochs.append(known)
        else:
            known.reads.extend(reads)
        self._end += len(reads)
        self._look_ahead()
        return self._end - len(reads)

    def reached(self, number: int, place: int) -> bool:
        """The sampler gave `place` reads of the epoch; False when no such order was told."""
        epoch = self._epoch(number)
        if epoch is None:
            return False
        self._told = True
        before = self._epochs[: self._epochs.index(epoch)]
        if before and self.cursor < before[-1].end:
            self._cut(epoch.first)
        self._epochs = self._epochs[len(before) :]
        self._move(epoch.first + max(0, min(place - epoch.start, len(epoch.reads))))
        return True

    def heard(self, slots: Iterable[int], *, own: bool) -> None:
        """They were read, by this order's job (`own`) or by somebody."""
        furthest = self.cursor
        for slot in slots:
            length = self._fetched.pop(slot, None)
            if length is not None:
                self.unread_bytes -= length
                self.used += 1
                self._judged += 1
            if own and self._may_be_ours(slot):
                furthest = max(furthest, self._no_more(slot) + 1)
        if not self._told:
            self._move(furthest)
            while len(self._epochs) > 1 and self.cursor >= self._epochs[0].end:
                del self._epochs[0]

    # -- what is to be done -----------------------------------------------------------------------

    def next(self, window: int) -> Due | None:
        """What to fetch next, within so many reads; told once."""
        self._at = max(self._at, self.cursor - LATE, self._epochs[0].first if self._epochs else 0)
        while self._at < min(self.cursor + window, self._end):
            row, first_slot, chunks = self._chunks_at(self._at)
            for done in range(self._chunks_done, len(chunks)):
                slot = first_slot + chunks[done]
                if self._at in self._awaited.get(slot, ()):  # else it was read meanwhile
                    self._chunks_done = done + 1
                    return Due(self._at, row, chunks[done], slot)
            self._at, self._chunks_done = self._at + 1, 0
        return None

    @property
    def lead(self) -> int:
        """So many reads are between the cursor and what is fetched next."""
        return max(0, self._at - self.cursor)

    def got(self, slot: int, length: int) -> None:
        """A chunk was fetched for this order."""
        self.fetched += 1
        if slot in self._awaited and slot not in self._fetched:
            self._fetched[slot] = length
            self.unread_bytes += length

    def needs(self, slot: int) -> bool:
        """Whether it was fetched for this order, or is read within the window."""
        if slot in self._fetched:
            return True
        awaited = self._awaited.get(slot)
        return awaited is not None and self.cursor <= awaited[-1] and awaited[0] < self._at

    def is_wrong(self) -> bool:
        """Whether nobody reads what was fetched. To be asked now and then."""
        if self._judged < JUDGED_CHUNKS:
            return False
        wrong = self._wasted > WASTED_SHARE * self._judged
        self._judged = self._wasted = 0
        return wrong

    # -- inside -----------------------------------------------------------------------------------

    def _epoch(self, number: int) -> _Epoch | None:
        return next((epoch for epoch in self._epochs if epoch.number == number), None)

    def _chunks_at(self, position: int) -> tuple[int, int, range]:
        """(row, its first slot, chunks) of the read at a position."""
        for epoch in self._epochs:
            if epoch.first <= position < epoch.end:
                row, first, count = epoch.reads.at(position - epoch.first)
                return row, *self._chunks_of(row, first, count)
        return 0, 0, range(0)

    def _may_be_ours(self, slot: int) -> bool:
        """Whether the sampler has given it, or is about to tell so: else another rank read it."""
        return not self._told or self._awaited.get(slot, (0,))[0] < self.cursor + AHEAD_OF_TOLD

    def _no_more(self, slot: int) -> int:
        """The first awaited read of a chunk took place; its position, or -1."""
        awaited = self._awaited.get(slot)
        if awaited is None:
            return -1
        position = awaited.pop(0)
        if not awaited:
            del self._awaited[slot]
        return position

    def _move(self, cursor: int) -> None:
        if cursor <= self.cursor:
            return
        self.cursor = cursor
        late = cursor - LATE
        while self._near and self._near[0][0] < late:
            position, slot = self._near.popleft()
            if self._awaited.get(slot, (-1,))[0] != position:
                continue  # it was read
            self._no_more(slot)
            length = self._fetched.pop(slot, None)
            if length is not None:
                self.unread_bytes -= length
                self._judged += 1
                self._wasted += 1
        self._head = max(self._head, late)
        self._look_ahead()

    def _look_ahead(self) -> None:
        end = min(self.cursor + NEAR, self._end)
        for position in range(self._head, end):
            _, first_slot, chunks = self._chunks_at(position)
            for chunk in chunks:
                self._near.append((position, first_slot + chunk))
                self._awaited.setdefault(first_slot + chunk, []).append(position)
        self._head = max(self._head, end)

    def _forget_from(self, number: int) -> None:
        gone = [epoch.first for epoch in self._epochs if epoch.number >= number]
        if gone:
            self._epochs = [epoch for epoch in self._epochs if epoch.number < number]
            self._await_only(range(gone[0]))
            self._head = max(self._head, self._end)

    def _cut(self, first: int) -> None:
        """The epochs before `first` were cut short: nothing more of them is awaited, nor judged."""
        self._await_only(range(first, self._end))
        self._fetched.clear()
        self.unread_bytes = 0
        self._head = max(self._head, first)

    def _await_only(self, positions: range) -> None:
        self._near = deque(near for near in self._near if near[0] in positions)
        kept = ((s, [at for at in found if at in positions]) for s, found in self._awaited.items())
        self._awaited = {slot: found for slot, found in kept if found}
