from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from cache_worker.children import (
    BACKOFF_MAX_SECONDS,
    KILLED_MAX_SECONDS,
    Child,
    Children,
    Signals,
    died,
    how,
    restart_delay_seconds,
)


@pytest.fixture
def signals():
    found = Signals()
    yield found
    found.close()


@pytest.fixture
def children(signals):
    found = Children(["/bin/sh", "-c"], signals, print)
    yield found
    found.stop(seconds=5)


def died_within(children, signals, seconds=10.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if dead := children.reap():
            return dead
        signals.wait(0.05)
        signals.ending()
    raise AssertionError("nobody died")


def test_the_first_restart_is_at_once_later_ones_wait():
    delays = [restart_delay_seconds(deaths) for deaths in range(12)]
    assert delays[:5] == [0, 0, 0.1, 0.2, 0.4]
    assert delays == sorted(delays)
    assert delays[-1] == restart_delay_seconds(10**6) == BACKOFF_MAX_SECONDS


def test_who_was_killed_never_waits_long():
    assert restart_delay_seconds(50, killed=True) == KILLED_MAX_SECONDS
    child = Child("worker", [], death=15)
    child.quick_deaths, child.started = 50, 0.0
    died(child, 0.5, -signal.SIGKILL)
    assert child.due == 0.5 + KILLED_MAX_SECONDS
    died(child, 0.5, -signal.SIGSEGV)
    assert child.due == 0.5 + BACKOFF_MAX_SECONDS


def test_only_quick_deaths_count():
    child = Child("worker", [], death=15)
    for started, now, quick in [(0, 0.5, 1), (1, 1.5, 2), (2, 60, 0), (60, 60.1, 1)]:
        child.pid, child.started = 7, started
        died(child, now, 1)
        assert (child.quick_deaths, child.pid, child.pid_before) == (quick, 0, 7)
        assert child.due == now + restart_delay_seconds(quick)


def test_exit_codes_in_words():
    assert how(-9) == "was killed by signal 9"
    assert how(3) == "exited with code 3"


def test_a_child_is_started_again_with_its_fds_and_an_unblocked_mask(children, signals):
    read, write = os.pipe()
    child = Child(
        "child", [f"grep SigBlk /proc/self/status >/proc/self/fd/{write}; exit 3"], death=9
    )
    child.fds = (write,)
    children.add(child)
    for _ in range(2):
        assert children.start_due() > 1
        assert died_within(children, signals) == [(child, 3)]
        assert os.read(read, 100).split() == [b"SigBlk:", b"0" * 16]
    assert not os.get_inheritable(write)
    os.close(read)
    os.close(write)


def test_the_parents_death_is_the_childs(tmp_path):
    pid = os.fork()
    if not pid:
        children = Children(["/bin/sh", "-c"], Signals(), print)
        child = Child("child", ["exec sleep 60"], death=signal.SIGKILL)
        children.add(child)
        children.start_due()
        (tmp_path / "pid").write_text(str(child.pid))
        os._exit(0)
    os.waitpid(pid, 0)
    sleeper = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            if "Z (zombie)" in Path(f"/proc/{sleeper}/status").read_text():
                return
        except OSError:
            return
        time.sleep(0.01)
    raise AssertionError("it lives on")


def test_stop_kills_who_does_not_end(children, signals, capsys):
    stubborn = Child("stubborn", ["trap '' TERM; while :; do sleep 0.05; done"], death=9)
    children.add(stubborn)
    children.start_due()
    time.sleep(0.2)
    started = time.monotonic()
    children.stop(seconds=0.3)
    assert 0.3 <= time.monotonic() - started < 3
    assert stubborn.pid == 0
    assert "the stubborn did not end within 0 s: killed" in capsys.readouterr().out
    assert children.start_due() > 1  # nobody is due any more


def test_who_is_dropped_dies_and_does_not_come_back(children, signals):
    runs = Child("runs", ["exec sleep 60"], death=9)
    waits = Child("waits", ["exec sleep 60"], death=9)
    waits.due = time.monotonic() + 60
    for child in (runs, waits):
        children.add(child)
    children.start_due()
    for child in (runs, waits):
        children.drop(child)
    deadline = time.monotonic() + 5
    while runs.pid:
        assert time.monotonic() < deadline
        assert children.reap() == []
    assert children.start_due() > 60


def test_signals_are_something_to_poll_for_and_handlers_come_back():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    signals = Signals()
    read, write = os.pipe()
    os.write(write, b"x")
    assert signals.wait(5, read) == {read}
    assert not signals.ending()
    os.kill(os.getpid(), signal.SIGTERM)
    assert signals.wait(5) == set()
    assert signals.ending()
    assert not signals.ending()
    signals.close()
    assert {number: signal.getsignal(number) for number in before} == before
    os.close(read)
    os.close(write)
