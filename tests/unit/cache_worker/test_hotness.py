import pytest

from cache_worker.hotness import TURN, WHOLE, Hotness, merged, units


def test_a_footer_is_not_a_read_of_a_chunk():
    assert units(8 << 20, 8 << 20) == WHOLE
    assert units(64 << 10, 8 << 20) == 1
    assert units(4 << 20, 8 << 20) == WHOLE // 2
    assert units(0, 0) == WHOLE


def test_counts_are_halved_so_that_the_past_counts_less():
    hot = Hotness(10)
    hot.add([0] * 50)
    before = hot.hottest(1)[0]
    hot.add([1] * (10 * TURN - 49))
    assert hot.hottest(2)[0] == before / 2
    assert hot.total <= 10 * TURN * WHOLE


def test_it_stops_at_the_most_it_can_count():
    hot = Hotness(1000)
    hot.add([5] * 5000)
    assert hot.hottest(1) == {5: pytest.approx(0xFFFF / WHOLE)}


def test_even_reads_are_flat_and_a_few_hot_ones_are_not():
    even, skewed = Hotness(100), Hotness(100)
    even.add([i % 100 for i in range(500)])
    skewed.add([i % 7 for i in range(500)])
    assert even.is_flat
    assert not skewed.is_flat
    assert Hotness(0).is_flat


def test_the_cluster_adds_up_what_its_nodes_say():
    assert merged([{1: 5.0, 2: 1.0}, {2: 6.0, 3: 2.0}], 2) == {2: 7.0, 1: 5.0}
