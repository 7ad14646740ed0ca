"""How one job reads: in passes, each chunk once, or again and again what is popular. Pure.

A chunk that is read again in the same pass is the question. Seldom, and after long: the pass is
over, the next begins. Often: the reads are skewed, and passes tell nothing.
"""

from __future__ import annotations

from math import exp, sqrt

PASS_READS = 4.0
"""A pass has at least so many times sqrt(chunks) reads."""
PASS_REPEATS = 0.02
SKEW_REPEATS = 0.1
SKEW_SLACK_READS = 50
LOOK_AGAIN = 4
"""A skewed stream is looked at again after so many shortest passes."""
IDLE_GAPS = 20.0
"""A stream silent for so many of its mean gaps has ended; times are counted in reads of all."""


class Stream:
    """What is known of one stream; which chunks it read in this pass is its region's."""

    __slots__ = (
        "_heard",
        "_shortest",
        "_span",
        "_weight",
        "ended",
        "length",
        "passes",
        "repeats",
        "seen",
        "skewed",
    )

    def __init__(self, chunks: int) -> None:
        self.length = chunks
        """Reads in a pass: of the last one, before that the number of chunks."""
        self.seen = 0
        self.repeats = 0
        self.passes = 0
        self.skewed = False
        self.ended = False
        self._shortest = PASS_READS * sqrt(chunks)
        self._span = chunks + 100.0
        self._weight = 0.0
        self._heard = 0

    def heard(self, clock: int, reads: int) -> None:
        """It made `reads` reads; `clock` counts those of all streams."""
        kept = exp(-reads / self._span)
        self._weight = self._weight * exp((self._heard + reads - clock) / self._span) * kept
        self._weight += 1.0 - kept
        self._heard = clock

    def rate(self, clock: int) -> float:
        """Its share of all reads; 0 when it has ended or is silent for long."""
        silent = clock - self._heard
        if self.ended or silent * self._weight > IDLE_GAPS:
            return 0.0
        return self._weight * exp(-silent / self._span)

    def again(self) -> bool:
        """It read a chunk again; True: that is the first read of its next pass."""
        if self.seen >= self._shortest and self.repeats <= PASS_REPEATS * self.seen:
            self.length = self.seen
            self.seen, self.repeats, self.skewed = 0, 0, False
            self.passes += 1
            return True
        self.repeats += 1
        if self.repeats > SKEW_REPEATS * (self.seen + SKEW_SLACK_READS):
            self.skewed = True
        return False

    def is_to_be_looked_at_again(self) -> bool:
        """Whether a skewed stream shall start over with an empty pass."""
        if not self.skewed or self.seen + self.repeats <= LOOK_AGAIN * self._shortest:
            return False
        self.seen, self.repeats = 0, 0
        return True

    @property
    def counts(self) -> bool:
        """Whether its reads tell what is popular: those of passes do not."""
        return self.skewed or not self.passes

    def per_read(self) -> tuple[float, float]:
        """1 / expected reads until it next reads a chunk (unread, read) in this pass."""
        length = max(self.length, self.seen)
        left = length - self.seen
        return 2.0 / (left + 1.0), 1.0 / (left + 0.5 * length)
