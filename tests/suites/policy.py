"""What every eviction policy must do. Inherit PolicySuite and give `make`."""

from random import Random

import pytest

from cache_worker.simulation.replay import replay
from cache_worker.simulation.trace import Trace
from tests.fakes.held import HeldChunks

CHUNKS = range(40)


class PolicySuite:
    """`admits`: whether it lets a chunk in that is read again and again."""

    admits = True

    def make(self):
        raise NotImplementedError

    @pytest.fixture
    def policy(self):
        policy = self.make()
        policy.joined(1, CHUNKS)
        return policy

    def keep(self, policy, lengths, **held):
        for slot in lengths:
            policy.read(1, [slot])
            policy.kept(slot)
        return HeldChunks(lengths, **held)

    def test_victims_are_here_and_named_once(self, policy):
        held = self.keep(policy, dict.fromkeys(range(20), 10))
        chosen = policy.victims(held, 70)
        assert len(set(chosen)) == len(chosen)
        assert set(chosen) <= held.here

    def test_no_more_goes_than_is_needed(self, policy):
        held = self.keep(policy, dict.fromkeys(range(20), 10))
        assert len(policy.victims(held, 70)) == (7 if self.admits else 0)

    def test_what_is_pinned_never_goes(self, policy):
        held = self.keep(policy, dict.fromkeys(range(20), 10), pinned=range(5, 20))
        assert set(policy.victims(held, 10_000)) <= set(range(5))

    def test_nothing_is_here(self, policy):
        held = HeldChunks({30: 10})
        held.here.clear()
        assert policy.victims(held, 10) == []
        policy.read(1, [30])
        assert policy.victims(held, 10, 30) == []

    def test_a_newcomer_that_cannot_get_its_room_takes_none(self, policy):
        held = self.keep(policy, {0: 10, 1: 10, 30: 100})
        held.here.discard(30)
        policy.read(1, [30])
        assert policy.victims(held, 100, 30) == []
        # ... and what stayed can still be chosen.
        assert len(policy.victims(held, 20)) == (2 if self.admits else 0)

    def test_what_was_dropped_is_not_chosen_again(self, policy):
        held = self.keep(policy, dict.fromkeys(range(10), 10))
        gone = policy.victims(held, 50)
        for slot in gone:
            held.here.discard(slot)
            policy.dropped(slot)
        assert not set(gone) & set(policy.victims(held, 50))

    def test_streams_that_end_and_chunks_nobody_knows_do_no_harm(self, policy):
        policy.left(1)
        policy.left(7)
        policy.dropped(39)
        assert set(policy.victims(HeldChunks({39: 10}), 10)) <= {39}

    def test_it_fits_and_everything_hits(self):
        order = list(CHUNKS)
        reads = order * 3
        trace = Trace("fits", [0] * len(reads), reads, (CHUNKS,), warm=len(order))
        assert replay(trace, self.make(), len(order)).hit_ratio == 1.0

    def test_the_same_reads_give_the_same_choices(self):
        dice = Random(5)
        reads = [int(40 * dice.random() ** 3) for _ in range(2000)]
        trace = Trace("skewed", [0] * len(reads), reads, (CHUNKS,), warm=1000)
        first, second = (replay(trace, self.make(), 10, seed=3) for _ in range(2))
        assert first == second
        assert 0 < first.hits < first.reads

    def test_it_never_holds_more_than_its_capacity(self):
        dice = Random(6)
        lengths = [dice.randrange(1, 20) for _ in CHUNKS]
        reads = [dice.randrange(40) for _ in range(1000)]
        trace = Trace("sizes", [0] * 1000, reads, (CHUNKS,), lengths=lengths)
        result = replay(trace, self.make(), 100)
        assert result.hit_bytes + result.origin_bytes >= result.bytes
