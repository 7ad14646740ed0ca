"""Kills, stops, pauses, drains and evictions at random, under readers: nothing wrong, nothing hung.

The seed is printed. CACHEOP_TEST_SEED=N plays one again, CACHEOP_TEST_STEPS=N makes it longer.
"""

import contextlib
import os
import random
import signal
import threading
import time

import pytest

from tests.fakes.running_cluster import Reader, RunningCluster, some_files
from tests.fakes.running_node import wait_for

STEPS = int(os.environ.get("CACHEOP_TEST_STEPS", "200"))
STEP_SECONDS = 0.2
READ_SECONDS = 30.0
"""The longest that one read may take, whatever is done to the others; on a busy machine."""

pytestmark = [pytest.mark.node, pytest.mark.slow, pytest.mark.timeout(120 + 3 * STEPS)]


class Script:
    """Does one thing after the other to nodes 1 to 3, waits for none; node 0 has the readers."""

    def __init__(self, cluster, source):
        self.cluster, self.source = cluster, source
        self.paused = set()
        self.done = []
        self.errands = []

    def step(self):
        k = self.source.randrange(1, len(self.cluster.nodes))
        node = self.cluster.nodes[k]
        if k in self.paused:
            what = self.source.choice(["resume", "resume", "kill"])
        elif node.process.poll() is None:
            what = self.source.choice(["kill", "stop", "pause", "drain", *4 * ["evict", "wait"]])
        else:
            what = "start"
        self.done.append((what, k))
        getattr(self, what)(k, node)

    def kill(self, k, node):
        node.kill()
        self.paused.discard(k)

    def stop(self, k, node):
        node.process.send_signal(signal.SIGTERM)

    def pause(self, k, node):
        node.process.send_signal(signal.SIGSTOP)
        self.paused.add(k)

    def resume(self, k, node):
        node.process.send_signal(signal.SIGCONT)
        self.paused.discard(k)

    def start(self, k, node):
        before = node.process
        self.meanwhile(lambda: node.start(ready=False, seconds=60))
        wait_for(lambda: node.process is not before)

    def drain(self, k, node):
        self.meanwhile(lambda: node.call("drain", seconds=2))

    def evict(self, k, node):
        chosen = self.cluster.nodes[self.source.choice([0, k])]
        self.meanwhile(lambda: chosen.call("evict", paths=[]))

    def wait(self, k, node):
        pass

    def meanwhile(self, what):
        """It may fail: its node may be killed before it is done."""

        def run():
            with contextlib.suppress(OSError, AssertionError):
                what()

        self.errands.append(threading.Thread(target=run))
        self.errands[-1].start()

    def end(self):
        for k in sorted(self.paused):
            self.resume(k, self.cluster.nodes[k])
        for errand in self.errands:
            errand.join(70)
            assert not errand.is_alive()
        for node in self.cluster.nodes[1:]:  # none drains any more
            node.stop()
        self.cluster.start(1, 2, 3)


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
        fds, threads = held(pid)
        script = Script(cluster, random.Random(seed))
        readers = [Reader(cluster.nodes[0], cluster.files, k, seconds=3600.0) for k in range(3)]
        try:
            for _ in range(STEPS):
                script.step()
                time.sleep(STEP_SECONDS)
                assert all(reader.is_alive() for reader in readers)
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
        assert "RuntimeWarning" not in cluster.logs()
        wait_for(lambda: held(pid)[0] <= fds + 16 and held(pid)[1] <= threads + 12, 40)
        print("fds, threads:", (fds, threads), "->", held(pid))
