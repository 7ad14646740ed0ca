import pytest

from cache_worker.eviction import POLICIES
from cache_worker.eviction.auto import Auto
from cache_worker.eviction.lru import LRU
from cache_worker.eviction.noevict import NoEvict
from cache_worker.eviction.sieve import Sieve
from tests.fakes.held import HeldChunks
from tests.suites.policy import CHUNKS, PolicySuite


class TestLRU(PolicySuite):
    make = LRU

    def test_the_longest_unused_go_first(self, policy):
        held = self.keep(policy, {3: 10, 1: 10, 2: 10})
        policy.read(1, [3])
        assert policy.victims(held, 15) == [1, 2]


class TestNoEvict(PolicySuite):
    make = NoEvict
    admits = False


class TestSieve(PolicySuite):
    make = Sieve

    def test_what_was_read_again_stays(self, policy):
        held = self.keep(policy, {3: 10, 1: 10, 2: 10})
        policy.read(1, [3])
        assert policy.victims(held, 20) == [1, 2]
        held.here -= {1, 2}
        assert policy.victims(held, 10) == [3]


class TestAuto(PolicySuite):
    make = Auto


def test_every_policy_is_tried():
    assert set(POLICIES) == {"Auto", "LRU", "SIEVE", "NoEvict"}


def read_all(policy, stream, chunks, times=1):
    for _ in range(times):
        policy.read(stream, list(chunks))


def test_auto_does_not_trade_chunks_of_one_pass():
    policy = Auto()
    policy.joined(1, CHUNKS)
    read_all(policy, 1, range(20))
    held = HeldChunks(dict.fromkeys(CHUNKS, 10))
    held.here = set(range(10))
    policy.read(1, [25])
    assert policy.victims(held, 10, 25) == []


def test_auto_drops_what_was_read_in_this_pass_before_what_was_not():
    policy = Auto()
    policy.joined(1, CHUNKS)
    read_all(policy, 1, range(0, 40, 2))
    held = HeldChunks(dict.fromkeys(range(10), 10))
    assert set(policy.victims(held, 50)) == {0, 2, 4, 6, 8}


def test_auto_lets_a_copy_go_before_the_only_one():
    policy = Auto()
    policy.joined(1, CHUNKS)
    held = HeldChunks(dict.fromkeys(range(10), 10), copies={2, 3})
    read_all(policy, 1, [4, 5])  # worth less than the unread, but nobody else has them
    assert set(policy.victims(held, 20)) == {2, 3}


def test_auto_weighs_bytes():
    policy = Auto()
    policy.joined(1, CHUNKS)
    lengths = dict.fromkeys(range(5), 100_000) | dict.fromkeys(range(5, 10), 8 << 20)
    policy.read(1, [39])
    assert set(policy.victims(HeldChunks(lengths), 8 << 20)) <= set(range(5, 10))


def test_auto_gives_a_new_version_the_room_of_one_that_nobody_reads():
    policy = Auto()
    policy.joined(1, range(40))
    read_all(policy, 1, range(40), 2)
    policy.left(1)
    policy.joined(2, range(40, 80))
    policy.read(2, [40])
    held = HeldChunks(dict.fromkeys(range(80), 10))
    held.here = set(range(10))
    assert len(policy.victims(held, 10, 40)) == 1


def test_auto_prefers_what_another_job_still_needs():
    policy = Auto()
    for stream in (1, 2):
        policy.joined(stream, CHUNKS)
    read_all(policy, 1, range(20))
    read_all(policy, 2, range(10))
    held = HeldChunks(dict.fromkeys(CHUNKS, 10))
    held.here = set(range(5)) | {15, 16}
    policy.read(1, [30])  # job 2 has not read it, nor 15 and 16; both have read 0 to 4
    assert set(policy.victims(held, 50, 30)) == set(range(5))


def test_auto_keeps_by_plan_what_is_used_next():
    policy = Auto()
    for stream in (1, 2):
        policy.joined(stream, CHUNKS)
        policy.planned(stream, [*range(40), *range(40)])
    read_all(policy, 1, range(20))
    read_all(policy, 2, range(10))
    held = HeldChunks(dict.fromkeys(CHUNKS, 10))
    held.here = set(range(40))
    # 10 to 19 are used next (by job 2), then 20 to 39, then 0 to 9 again.
    assert set(policy.victims(held, 100)) == set(range(10))


@pytest.mark.parametrize("count", [7, 20])
def test_auto_takes_more_jobs_than_it_has_bits_for(count):
    policy = Auto()
    for stream in range(count):
        policy.joined(stream, CHUNKS)
        read_all(policy, stream, CHUNKS)
    for stream in range(count):
        policy.left(stream)
    policy.joined(99, CHUNKS)
    read_all(policy, 99, range(5))
    held = HeldChunks(dict.fromkeys(range(10), 10))
    assert set(policy.victims(held, 50)) == set(range(5))
