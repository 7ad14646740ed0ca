from __future__ import annotations

import subprocess
import sys

FAILS = """
import threading, time
from cache_worker.mounts import server
threading.excepthook = server.thread_failed
threading.Thread(target=lambda: 1 / 0, name="holder line").start()
time.sleep(20)
"""


def test_a_process_does_not_live_on_without_one_of_its_threads():
    ended = subprocess.run(
        [sys.executable, "-c", FAILS], capture_output=True, timeout=15, check=False
    )
    assert ended.returncode == 1
    assert b"holder line: ZeroDivisionError" in ended.stderr
