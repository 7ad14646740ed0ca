"""The chunks of one version, as read by up to eight streams: what each is worth keeping. Pure.

Three bytes a chunk: which streams read it in their pass, and how hot it is; plans come on top.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache_worker.eviction.plans import NEVER, Plan
from cache_worker.eviction.streams import Stream
from cache_worker.hotness import WHOLE, Hotness

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

STREAMS = 8
"""With a bit of their own; more share the last one."""
NO_VOTE = int(1.5 * WHOLE)
"""Off a newcomer's count, so that the read that asks for it has no vote."""
FORGET = [bytes(b & ~(1 << bit) for b in range(256)) for bit in range(STREAMS)]
"""bytes.translate tables that clear one stream's bit."""


class Region:
    """Owned by the policy."""

    def __init__(self, chunks: range) -> None:
        self.chunks = chunks
        self.hotness = Hotness(len(chunks))
        self.heard = 0
        """The policy's clock at the last read."""
        self._read = bytearray(len(chunks))  # by chunk: a bit for each stream
        self._streams: dict[int, Stream] = {}
        self._bits: dict[int, int] = {}
        self._plans: dict[int, Plan] = {}

    def join(self, stream: int) -> None:
        """A new stream takes a free place, else that of one that ended, else the shared one."""
        taken = set(self._bits.values())
        free = [bit for bit in range(STREAMS) if bit not in taken]
        ended = [name for name, known in self._streams.items() if known.ended]
        if free:
            bit = free[0]
        elif ended:
            bit = self._bits[ended[0]]
            self.leave(ended[0])
            del self._streams[ended[0]], self._bits[ended[0]]
        else:
            bit = STREAMS - 1
        self._streams[stream] = Stream(len(self.chunks))
        self._bits[stream] = bit
        if free or ended:
            self._forget_pass(bit)

    def leave(self, stream: int) -> None:
        """It ended: it wants nothing any more. Its place is taken by the next."""
        self._streams[stream].ended = True
        self._plans.pop(stream, None)

    def plan(self, stream: int, slots: Iterable[int], at: Iterable[int] | None, ranks: int) -> None:
        """More of what the stream will read, in order. Of more than STREAMS plans none is kept."""
        first, plan = self.chunks.start, self._plans.get(stream)
        if plan is None:
            if len(self._plans) >= STREAMS:
                return
            plan = self._plans[stream] = Plan(len(self.chunks))
        plan.ranks = max(1, ranks)
        plan.extend((slot - first for slot in slots), at)

    def reached(self, stream: int, position: int) -> None:
        """The stream is so far in its plan."""
        plan = self._plans.get(stream)
        if plan is not None:
            plan.reached(position)

    def unplan(self, stream: int) -> None:
        """The stream's plan is void."""
        self._plans.pop(stream, None)

    def read(
        self, stream: int, slots: Sequence[int], units: Sequence[int] | None, clock: int
    ) -> None:
        """The stream read these; `clock` counts the reads of all, these among them."""
        chunks = self._indexes(slots)
        known = self._streams[stream]
        known.heard(clock, len(chunks))
        self.heard = clock
        bit = self._bits[stream]
        mask, read, seen = 1 << bit, self._read, known.seen
        for chunk in chunks:
            bits = read[chunk]
            if bits & mask:
                known.seen = seen
                if not known.again():
                    continue
                seen = 0
            if not seen:
                read = self._forget_pass(bit)
                bits = read[chunk]
            seen += 1
            read[chunk] = bits | mask
        known.seen = seen
        if known.counts:
            self.hotness.add(chunks, units)
        if known.is_to_be_looked_at_again():
            self._forget_pass(bit)
        plan = self._plans.get(stream)
        if plan is not None:
            for chunk in chunks:
                plan.read(chunk)
            if plan.is_wrong():
                del self._plans[stream]

    def _indexes(self, slots: Sequence[int]) -> Sequence[int]:
        first = self.chunks.start
        return [slot - first for slot in slots] if first else slots

    def _forget_pass(self, bit: int) -> bytearray:
        self._read = self._read.translate(FORGET[bit])
        return self._read

    def demand(self, slots: Sequence[int], clock: int, newcomer: int = -1) -> list[float]:
        """How often each is read, as a share of all reads; `newcomer` is just being read."""
        chunks = self._indexes(slots)
        by_bits, popular, even, planned = self._expectations(clock)
        read = self._read
        if not popular:
            values = [by_bits[read[c]] for c in chunks]
        else:
            counts = self.hotness.counts
            values = [by_bits[read[c]] + popular * counts[c] for c in chunks]
            if newcomer in slots:
                at = slots.index(newcomer)
                values[at] -= popular * min(NO_VOTE, counts[chunks[at]])
        if even:
            values = [value + even for value in values]
        for rate, plan in planned:
            until = plan.reads_until
            values = [
                max(value, rate / reads) if (reads := until(c)) != NEVER else value
                for value, c in zip(values, chunks, strict=True)
            ]
        return values

    def _expectations(
        self, clock: int
    ) -> tuple[list[float], float, float, list[tuple[float, Plan]]]:
        """(by the bits of a chunk, per unit of its count, for each chunk, plans and their rates).

        The plan of a stream that is alone tells nothing: whatever is kept, as many hits come of
        it. What comes next would be kept, and the origin had nothing to do for that long.
        """
        active = [
            (stream, known, rate)
            for stream, known in self._streams.items()
            if (rate := known.rate(clock)) > 1e-6
        ]
        popular = even = 0.0
        planned: list[tuple[float, Plan]] = []
        unread, gained = 0.0, [0.0] * STREAMS  # by bit: how much less a chunk is worth once read
        for stream, known, rate in active:
            plan = self._plans.get(stream)
            if plan is not None and len(active) > 1:
                planned.append((rate, plan))
            elif known.skewed and self.hotness.is_flat:
                even += rate / max(1, len(self.chunks))
            elif known.skewed:
                popular += rate / max(1, self.hotness.total)
            else:
                when_unread, when_read = known.per_read()
                unread += rate * when_unread
                gained[self._bits[stream]] -= rate * (when_unread - when_read)
        by_bits = [unread]
        for gain in gained[: 1 + max(self._bits.values(), default=0)]:
            by_bits += [value + gain for value in by_bits]
        return by_bits, popular, even, planned
