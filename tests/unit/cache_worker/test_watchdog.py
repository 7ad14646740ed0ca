"""A loop that stands still ends its process; one that is slow, paused or over does not."""

import asyncio
import os
import signal
import subprocess
import sys
import time

from cache_worker.watchdog import EXIT_STUCK, watched

STUCK = """
import asyncio, time
from cache_worker.watchdog import watched

async def main():
    with watched(asyncio.get_running_loop(), 0.1, 2):
        await asyncio.sleep(0.3)
        where_it_stands()

def where_it_stands():
    time.sleep({seconds})

asyncio.run(main())
"""


def test_a_worker_that_stands_still_says_where_and_ends():
    done = subprocess.run(
        [sys.executable, "-c", STUCK.format(seconds=60)],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == EXIT_STUCK
    assert "where_it_stands" in done.stderr


def test_one_that_was_slow_for_a_moment_lives():
    done = subprocess.run(
        [sys.executable, "-c", STUCK.format(seconds=1)],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_one_that_was_paused_lives():
    process = subprocess.Popen([sys.executable, "-c", STUCK.format(seconds=1)])
    time.sleep(1.0)
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(4)
    os.kill(process.pid, signal.SIGCONT)
    assert process.wait(30) == 0


def test_it_ends_with_what_it_watches():
    async def body():
        with watched(asyncio.get_running_loop(), 0.01, 2):
            await asyncio.sleep(0.1)

    started = time.monotonic()
    asyncio.run(body())
    assert time.monotonic() - started < 2
