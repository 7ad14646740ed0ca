from array import array
from math import log
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_worker import simulate
from cache_worker.eviction.auto import Auto
from cache_worker.eviction.lru import LRU
from cache_worker.eviction.noevict import NoEvict
from cache_worker.simulation import belady
from cache_worker.simulation.replay import replay
from cache_worker.simulation.trace import parse
from cache_worker.simulation.traces import TRACES
from cacheop.api.errors import UserError

SEED = 7


@pytest.mark.parametrize("share_at", range(5))
def test_lru_hits_what_the_formula_says(share_at):
    trace = TRACES["epochs"](SEED, 400)
    c = trace.shares[share_at]
    found = replay(trace, LRU(), trace.capacities[share_at]).hit_ratio
    assert found == pytest.approx(c + (1 - c) * log(1 - c), abs=0.02)


@pytest.mark.parametrize("kind", ["epochs", "same-order", "dataset-change", "4-jobs-merged"])
def test_auto_hits_the_share_that_fits(kind):
    trace = TRACES[kind](SEED, 300)
    share = trace.shares[2]
    assert replay(trace, Auto(), trace.capacities[2]).hit_ratio >= 0.97 * share


@pytest.mark.parametrize(
    ("kind", "of_best"), [("4-jobs", 0.8), ("4-jobs-plans", 0.97), ("4-jobs-one-order", 0.97)]
)
def test_jobs_that_share_a_dataset(kind, of_best):
    trace = TRACES[kind](SEED, 300)
    best = belady.hit_ratio(trace.slots, trace.capacities[2], trace.warm)
    assert replay(trace, Auto(), trace.capacities[2]).hit_ratio >= of_best * best


def test_what_is_not_admitted_is_read_by_range():
    trace = TRACES["shards"](SEED, 500)
    half = replay(trace, Auto(), trace.capacities[2])
    assert half.origin_bytes == pytest.approx(0.5 * half.bytes, rel=0.05)


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=200),
    st.integers(1, 10),
)
def test_nothing_hits_more_than_the_optimum(reads, capacity):
    text = [f"0 {slot}" for slot in reads]
    trace = parse("given", text, warm_share=0.0)
    best = belady.hit_ratio(trace.slots, capacity, 0)
    for policy in (Auto(), LRU(), NoEvict()):
        assert replay(trace, policy, capacity).hit_ratio <= best + 1e-9


def test_belady_by_hand():
    # Room for two: 1 and 2 are kept, 3 is read through, for it is used last.
    assert belady.hit_ratio(array("I", [1, 2, 3, 1, 2, 3]), 2, 0) == pytest.approx(2 / 6)


def test_a_trace_from_text():
    lines = ["# version 0 2", "# version 2 2", "1 0 10 100", "", "2 3 100 100"]
    trace = parse("mine", lines, warm_share=0.0)
    assert list(trace.slots) == [0, 3]
    assert list(trace.streams) == [1, 2]
    assert trace.versions == (range(2), range(2, 4))
    assert list(trace.lengths) == [100, 0, 0, 100]
    assert replay(trace, LRU(), 200).origin_bytes == 200


@pytest.mark.parametrize("line", ["1", "1 2 3", "a b", "1 -2", "1 2 3 4 5"])
def test_a_line_that_is_no_read_is_named(line):
    with pytest.raises(UserError, match="line 2"):
        parse("mine", ["0 0", line])


def test_the_command_prints_a_table(tmp_path, capsys):
    dice = Random(1)
    file = tmp_path / "trace"
    file.write_text("".join(f"0 {dice.randrange(50)}\n" for _ in range(500)))
    assert simulate.main([str(file)]) == 0
    out = capsys.readouterr().out
    for name in ("Auto", "LRU", "SIEVE", "NoEvict", "Belady"):
        assert name in out
    assert simulate.main([str(tmp_path / "not there")]) == 2
    assert "zipf-1.0" in capsys.readouterr().err
