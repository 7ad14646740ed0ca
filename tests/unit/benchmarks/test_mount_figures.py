"""Goals are met by the right ratios, of the mode that was asked for."""

from __future__ import annotations

import pytest

from benchmarks.mount.figures import EXT4, JUICEFS, Sample, Series
from benchmarks.mount.goals import DISK, ONCE, WARM, judge, with_readers


def sample(files_per_second, *, cpu=0.5):
    return Sample(2.0, round(2 * files_per_second), 2_000_000_000, {"reader": cpu, "mount": cpu})


def series(what, system, rates, *, ext4=1000, mode=""):
    row = Series(what, system, "files/s", mode or f"{system}: because")
    row.samples = [sample(rate) for rate in rates]
    row.beside = [sample(ext4) for _ in rates]
    return row


WHAT = with_readers(WARM, 8)


@pytest.mark.parametrize(
    ("rate", "juicefs", "met"), [(950, 60, True), (940, 60, False), (950, 70, False)]
)
def test_both_goals_count(rate, juicefs, met):
    ours, theirs = judge([series(WHAT, "ZeroOpen", [rate] * 3), series(WHAT, JUICEFS, [juicefs])])
    assert ours.met is met
    assert ours.ratio == pytest.approx(rate / 1000)
    assert ours.x_juicefs == pytest.approx(rate / juicefs)
    assert theirs.met is None


def test_another_mode_than_asked_for_meets_nothing():
    (found,) = judge([series(WHAT, "ZeroOpen", [1000], mode="Native: complete")])
    assert found.met is False


def test_median_and_spread_of_runs():
    (found,) = judge([series(WHAT, "Native", [900, 1000, 5000])])
    assert (found.value, found.spread, found.met) == (1000, (900, 5000), True)


def test_cpu_of_all_processes_per_file_and_gigabyte():
    (found,) = judge([series(WHAT, "Native", [1000, 1000])])
    assert found.cpu_seconds_per_file == pytest.approx(2.0 / 4000)
    assert found.cpu_seconds_per_gigabyte == pytest.approx(0.5)
    assert found.cpu_share == {"mount": 1.0, "reader": 1.0}


def test_from_disk_the_better_of_two_modes_counts():
    what = with_readers(DISK, 8)
    slow, fast = judge([series(what, "ZeroOpen", [500]), series(what, "Passthrough", [800])])
    assert slow.met is None
    assert fast.met is True
    (alone,) = judge([series(what, "ZeroOpen", [500])])
    assert alone.met is False


def test_twice_in_the_page_cache_is_told():
    once, twice, rival = judge(
        [
            Series(ONCE, "Native", "x", "Native: complete", values=[1.0]),
            Series(ONCE, "Passthrough", "x", "Passthrough", values=[2.0]),
            Series(ONCE, JUICEFS, "x", values=[2.0]),
        ]
    )
    assert (once.met, twice.met, rival.met) == (True, False, None)


def test_no_goal_where_the_baseline_is_missing():
    row = series(WHAT, "Native", [1000])
    row.beside = []
    (found,) = judge([row])
    assert found.goals == {}
    assert found.baseline == ""
    assert EXT4 not in found.goals
