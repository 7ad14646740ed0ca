"""Kills, stops, pauses, drains and evictions at random, under readers: nothing wrong, nothing hung.

The seed is printed. CACHEOP_TEST_SEED=N plays one again, CACHEOP_TEST_STEPS=N makes it longer.
"""

import contextlib
import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.fakes.running_cluster import Reader, RunningCluster, some_files
from tests.fakes.running_node import wait_for

STEPS = int(os.environ.get("CACHEOP_TEST_STEPS", "200"))
STEP_SECONDS = 0.15
READ_SECONDS = 30.0
"""The longest that one read may take, whatever is done to the others; on a busy machine."""

pytestmark = [pytest.mark.node, pytest.mark.slow, pytest.mark.timeout(120 + 3 * STEPS)]


class Script:
    """Does one thing after the other to nodes 1 to 3; node 0 has the readers."""

    def __init__(self, cluster, source):
        self.cluster, self.source = cluster, source
        self.paused = set()
        self.done = []

    def step(self):
        k = self.source.randrange(1, len(self.cluster.nodes))
        node = self.cluster.nodes[k]
        runs = node.process.poll() is None
        if k in self.paused:
            what = self.source.choice(["resume", "kill"])
        elif runs:
            what = self.source.choice(["kill", "stop", "pause", "drain", "evict", "evict", "wait"])
        else:
            what = "start"
        self.done.append((what, k))
        getattr(self, what)(k, node)

    def kill(self, k, node):
        node.kill()
        self.paused.discard(k)

    def stop(self, k, node):
        node.process.send_signal(signal.SIGTERM)
        node.process.wait(20)

    def pause(self, k, node):
        node.process.send_signal(signal.SIGSTOP)
        self.paused.add(k)

    def resume(self, k, node):
        node.process.send_signal(signal.SIGCONT)
        self.paused.discard(k)

    def start(self, k, node):
        node.start(ready=False, seconds=60)

    def drain(self, k, node):
        with contextlib.suppress(OSError):  # not listening yet
            assert node.call("drain", seconds=2)["phase"] in {"Drained", "Late"}

    def evict(self, k, node):
        chosen = self.cluster.nodes[self.source.choice([0, k])]
        with contextlib.suppress(OSError):
            chosen.call("evict", paths=[])

    def wait(self, k, node):
        time.sleep(0.5)

    def end(self):
        for k in sorted(self.paused):
            self.resume(k, self.cluster.nodes[k])
        for node in self.cluster.nodes:  # none drains any more
            if node is not self.cluster.nodes[0]:
                node.stop()
                node.start(ready=False, seconds=60)


def held(pid):
    """(fds, threads) of a process."""
    return len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task"))


def test_whatever_happens_to_its_neighbours_a_nodes_readers_get_right_bytes_in_time(tmp_path):
    seed = int(os.environ.get("CACHEOP_TEST_SEED") or random.randrange(1 << 32))
    print(f"CACHEOP_TEST_SEED={seed}")
    with RunningCluster(tmp_path, some_files(small=40, big=1)) as cluster:
        cluster.start()
        cluster.read_all()
        pid = cluster.nodes[0].process.pid
        script = Script(cluster, random.Random(seed))
        readers = [Reader(cluster.nodes[0], cluster.files, k, seconds=3600.0) for k in range(3)]
        budget = time.monotonic() + max(60.0, 0.4 * STEPS)
        try:
            for _ in range(STEPS):
                script.step()
                time.sleep(STEP_SECONDS)
                assert all(reader.is_alive() for reader in readers)
                if time.monotonic() > budget and "CACHEOP_TEST_STEPS" not in os.environ:
                    break
        finally:
            for reader in readers:
                reader.ended.set()
            script.end()
            print(len(script.done), "steps:", script.done)
        for reader in readers:
            reader.finish(READ_SECONDS + 10)
            assert reader.slowest < READ_SECONDS
            assert reader.done > 50
        cluster.settle(60)
        cluster.read_all()
        assert "Traceback" not in cluster.logs()
        del readers
        # What was opened for neighbours of the past is closed: a quiet node holds what it needs.
        wait_for(lambda: held(pid)[0] < 80 and held(pid)[1] < 60, 40)
        assert Path(f"/proc/{pid}").exists()
