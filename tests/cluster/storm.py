"""Readers that never stop: files held open or opened anew, no pages kept, every byte compared."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.cluster import datasets
from tests.cluster.datasets import WHERE

if TYPE_CHECKING:
    from tests.cluster.kubectl import Kubectl, Object
    from tests.cluster.origin import Origin

# Says "reading" when all files are open, and what it has met when it is asked (SIGUSR1) and when it
# is told to end. The pages of what it reads are dropped, so that the mount is asked and not the
# kernel's memory.
READ = """
import json, os, random, signal, sys, time
top, salt, sizes, pause = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), float(sys.argv[4])
want = {path: random.Random(salt + path).randbytes(size) for path, size in sizes.items()}
seen = {"reads": 0, "errors": [], "wrong": [], "longest": 0.0}
ending, asked = [], []
signal.signal(signal.SIGTERM, lambda *_: ending.append(1))
signal.signal(signal.SIGUSR1, lambda *_: asked.append(1))
def look(path, fd):
    at = random.randrange(0, max(1, sizes[path]))
    length = random.choice([1, 4096, 100_000, 1 << 20])
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    body = os.pread(fd, length, at)
    if body != want[path][at:at + length]:
        seen["wrong"].append(f"{path} {at} {length}: {len(body)}")
def attempt(path, held):
    began = time.monotonic()
    try:
        if random.random() < 0.5:
            look(path, held[path])
        else:
            fd = os.open(os.path.join(top, path), os.O_RDONLY)
            try:
                look(path, fd)
            finally:
                os.close(fd)
        if random.random() < 0.02:
            found = sum(len(names) for _, _, names in os.walk(top))
            if found < len(sizes):
                seen["wrong"].append(f"{found} files")
    except OSError as error:
        seen["errors"].append(f"{time.strftime('%T')} {error}")
        time.sleep(0.2)
    seen["reads"] += 1
    seen["longest"] = max(seen["longest"], time.monotonic() - began)
held = {path: os.open(os.path.join(top, path), os.O_RDONLY) for path in sizes}
print("reading", flush=True)
while not ending:
    attempt(random.choice(list(sizes)), held)
    if asked:
        asked.clear()
        print(json.dumps(seen), flush=True)
    time.sleep(pause)
print(json.dumps(seen), flush=True)
"""
SIGNAL = "import os, signal; os.kill(1, signal.{})"
ANSWER_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Storm:
    """Readers in pods, by name."""

    namespace: Kubectl
    pods: tuple[str, ...]

    def check(self) -> None:
        """AssertionError if one has met an error or a wrong byte by now, or reads no more."""
        before = {name: self.namespace.logs(name) for name in self.pods}
        for name in self.pods:
            self.namespace.execute(name, "python", "-c", SIGNAL.format("SIGUSR1"))
        for name in self.pods:
            self.namespace.until(
                f"{name} says how it is",
                lambda name=name: self.namespace.logs(name) != before[name],
                seconds=ANSWER_SECONDS,
            )
            _judge(name, self.namespace.logs(name))

    def end(self) -> None:
        """Let them end; AssertionError as `check`."""
        for name in self.pods:
            self.namespace.execute(name, "python", "-c", SIGNAL.format("SIGTERM"))
        for name in self.pods:
            _judge(name, self.namespace.output_of(name))
            self.namespace.run("delete", "pod", name, "--wait=false")

    def reads(self) -> None:
        """Wait until each has all files open."""
        for name in self.pods:
            self.namespace.until(
                f"{name} reads",
                lambda name=name: "reading" in self.namespace.logs(name),
                seconds=60,
            )


def storm_pod(
    name: str, image: str, origin: Origin, volume: Object, *, pause: float = 0.02, **more: Any
) -> Object:
    """One such reader."""
    command = ["python", "-c", READ, WHERE, origin.salt, json.dumps(origin.sizes), str(pause)]
    return datasets.user(name, image, command, volume, **more)


def begin(namespace: Kubectl, *pods: Object) -> Storm:
    """Start them, and wait until they read."""
    namespace.apply(*pods)
    storm = Storm(namespace, tuple(one["metadata"]["name"] for one in pods))
    storm.reads()
    return storm


def _judge(name: str, log: str) -> None:
    told = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    seen = told[-1]
    print(f"{name}: {seen['reads']} reads, longest {seen['longest']:.1f} s")
    assert seen["errors"] == [], name
    assert seen["wrong"] == [], name
    assert seen["reads"] - (told[-2]["reads"] if len(told) > 1 else 0) > 5, name
