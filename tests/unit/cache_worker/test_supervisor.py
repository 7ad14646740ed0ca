from __future__ import annotations

import signal

import pytest

from cache_worker import supervisor
from cache_worker.supervisor import Child, died, read_targets, restart_delay_seconds
from cacheop.api.errors import UserError


def test_the_first_restart_is_at_once_later_ones_wait():
    delays = [restart_delay_seconds(deaths) for deaths in range(12)]
    assert delays[:5] == [0, 0, 0.1, 0.2, 0.4]
    assert delays == sorted(delays)
    assert delays[-1] == restart_delay_seconds(10**6) == 5


def test_only_quick_deaths_count():
    child = Child("worker", [], {}, fd=-1, death=15)
    for started, now, quick in [(0, 0.5, 1), (1, 1.5, 2), (2, 60, 0), (60, 60.1, 1)]:
        child.pid, child.started = 1, started
        died(child, now)
        assert (child.quick_deaths, child.pid) == (quick, 0)
        assert child.due == now + restart_delay_seconds(quick)


def test_jemalloc_is_preloaded_unless_something_else_is():
    base = {"PATH": "/bin"}
    assert supervisor.worker_environment(base, "") == base
    found = supervisor.worker_environment(base, "/lib/libjemalloc.so.2")
    assert found["LD_PRELOAD"] == "/lib/libjemalloc.so.2"
    assert "background_thread:true" in found["MALLOC_CONF"]
    chosen = {"LD_PRELOAD": "/lib/asan.so"}
    assert supervisor.worker_environment(chosen, "/lib/libjemalloc.so.2") == chosen


def test_targets_of_a_configuration(tmp_path):
    path = tmp_path / "c.json"
    path.write_text('{"mounts": [{"target": "/a"}, {"target": "/b"}], "dataset": {}}')
    assert read_targets(str(path)) == ["/a", "/b"]
    path.write_text("{}")
    assert read_targets(str(path)) == []


@pytest.mark.parametrize("text", ["", "[]", '{"mounts": [{}]}', '{"mounts": 1}'])
def test_a_broken_configuration_is_the_users_error(tmp_path, text):
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(UserError, match="cannot read"):
        read_targets(str(path))
    with pytest.raises(UserError, match="cannot read"):
        read_targets(str(tmp_path / "none.json"))


def test_wrong_use_exits_with_2(tmp_path, capfd):
    assert supervisor.main([]) == 2
    assert supervisor.main([str(tmp_path / "none.json")]) == 2
    # What it blocked it unblocks: a mask left behind is inherited by every process started later.
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert capfd.readouterr().err.count("cacheop supervisor: ") == 2
