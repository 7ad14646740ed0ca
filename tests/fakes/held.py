"""A Held over a dict: all of it is every sample, so that what is chosen does not depend on dice."""

from cache_worker.eviction.policy import Held


class HeldChunks(Held):
    """`lengths` by slot; `pinned` may not go, `copies` are on another node too."""

    def __init__(self, lengths, *, pinned=(), copies=()):
        self.lengths_ = dict(lengths)
        self.here = set(lengths)
        self.pinned, self.copies_ = set(pinned), set(copies)

    def sample(self, count):
        del count
        return sorted(self.here - self.pinned)

    def may_go(self, slot):
        return slot in self.here and slot not in self.pinned

    def lengths(self, slots):
        return [self.lengths_[slot] for slot in slots]

    def copies(self, slots):
        return self.copies_.intersection(slots)
