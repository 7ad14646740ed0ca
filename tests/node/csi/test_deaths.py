"""What readers feel when the node plugin, a worker or a supervisor dies: nothing, or a pause."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.fakes.kubelet import wait_for
from tests.node.csi.conftest import checksums

pytestmark = pytest.mark.node


class Readers:
    """Threads that open and read files over and over, and count what is wrong."""

    def __init__(self, target, wanted: dict[str, str], count: int = 2) -> None:
        self.target, self.wanted = target, wanted
        self.reads, self.wrong = 0, []
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(count)]

    def _run(self) -> None:
        while not self._ending.is_set():
            for path, checksum in self.wanted.items():
                try:
                    data = (self.target / path).read_bytes()
                    if hashlib.sha256(data).hexdigest() != checksum:
                        self.wrong.append(f"{path}: wrong bytes")
                except OSError as error:
                    self.wrong.append(f"{path}: {error}")
                self.reads += 1

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._ending.set()
        for thread in self._threads:
            thread.join(20)


@pytest.mark.parametrize("mode", ["ZeroOpen", "Passthrough", "Fuse", "Native"])
def test_readers_do_not_notice_a_new_node_plugin(kubelet, stored, mode):
    data = stored({f"f{n}": 110_000 for n in range(50)})
    worker = kubelet.worker("imagenet", data.mounts, spec={"mount": {"mode": mode}})
    worker.wait_ready()
    wait = {"waitFor": "complete"} if mode == "Native" else {}
    target = kubelet.publish_in_the_end("reader", {"dataset": "imagenet", **wait})
    with Readers(target, data.checksums) as readers:
        for _ in range(3):
            time.sleep(0.4)
            kubelet.kill()
            time.sleep(0.2)
            kubelet.start()
        wait_for(lambda: not kubelet.stats("reader").volume_condition.abnormal)
        before = readers.reads
        wait_for(lambda: readers.reads > before + 100)
    assert readers.wrong == []
    other = kubelet.publish("another", {"dataset": "imagenet"})
    assert checksums(other) == data.checksums
    kubelet.unpublish("another")
    kubelet.unpublish("reader")
    assert not target.exists()
    assert all(kind != "fuse.cacheop" for _, kind in kubelet.mounted())


def test_readers_wait_for_a_worker_that_was_killed(kubelet, stored):
    data = stored({f"f{n}": 110_000 for n in range(50)})
    worker = kubelet.worker("imagenet", data.mounts, spec={"mount": {"mode": "Passthrough"}})
    target = kubelet.publish_in_the_end("reader", {"dataset": "imagenet"})
    with Readers(target, data.checksums) as readers:
        for verb in ("work", "mount", "work"):
            time.sleep(0.4)
            worker.kill(verb)
        before = readers.reads
        wait_for(lambda: readers.reads > before + 100)
    assert readers.wrong == []


def test_a_new_worker_pod_serves_the_old_mount(kubelet, stored):
    """The pod is replaced (image rolled): its supervisor is new, the node plugin has the fds."""
    data = stored({f"f{n}": 110_000 for n in range(50)})
    worker = kubelet.worker("imagenet", data.mounts, spec={"mount": {"mode": "ZeroOpen"}})
    target = kubelet.publish_in_the_end("reader", {"dataset": "imagenet"})
    with Readers(target, data.checksums) as readers:
        time.sleep(0.4)
        worker.stop(signal.SIGKILL)
        worker.start()
        worker.wait_ready()
        time.sleep(0.5)
    assert readers.wrong == []
    kubelet.kill()
    kubelet.start()
    assert checksums(target) == data.checksums


def test_several_datasets_at_once_and_one_that_hangs(kubelet, stored):
    sets = {name: stored({f"{name}-{n}": 50_000 for n in range(10)}) for name in ("a", "b", "c")}
    workers = {name: kubelet.worker(name, data.mounts) for name, data in sets.items()}
    for name in sets:
        kubelet.publish_in_the_end(f"reader-{name}", {"dataset": name})
    for verb in ("supervise", "work", "mount"):
        for pid in workers["b"].pids(verb):
            os.kill(pid, signal.SIGSTOP)
    try:
        for name in ("a", "c"):
            started = time.monotonic()
            target = kubelet.publish(f"more-{name}", {"dataset": name})
            assert checksums(target) == sets[name].checksums
            kubelet.unpublish(f"more-{name}")
            assert time.monotonic() - started < 5
        started = time.monotonic()
        kubelet.unpublish("reader-b")
        assert time.monotonic() - started < 5
    finally:
        for verb in ("supervise", "work", "mount"):
            for pid in workers["b"].pids(verb):
                os.kill(pid, signal.SIGCONT)
    assert checksums(kubelet.publish("again-b", {"dataset": "b"})) == sets["b"].checksums


def test_unpublish_of_a_mount_whose_servers_are_all_dead(kubelet, stored):
    data = stored()
    worker = kubelet.worker("imagenet", data.mounts, spec={"mount": {"mode": "Fuse"}})
    target = kubelet.publish_in_the_end("reader", {"dataset": "imagenet"})
    kubelet.kill()
    worker.stop(signal.SIGKILL)
    kubelet.start()
    started = time.monotonic()
    kubelet.unpublish("reader")
    assert time.monotonic() - started < 5
    assert not os.path.lexists(target)
    worker.start()
    assert checksums(kubelet.publish_in_the_end("next", {"dataset": "imagenet"})) == data.checksums


def test_the_node_plugin_is_small_when_idle(kubelet, stored):
    for name in ("a", "b", "c"):
        kubelet.worker(name, stored({"f": 1000}).mounts)
        kubelet.publish_in_the_end(f"reader-{name}", {"dataset": name})
    pid = kubelet.plugin.pid
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    rss_kib = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    print(f"node plugin: {rss_kib / 1024:.1f} MiB RSS with 3 Datasets and 3 readers")
    assert rss_kib <= 64 * 1024
    modules = Path(f"/proc/{pid}/maps").read_text()
    assert "obstore" not in modules
