"""`python -m tests.node.mounts.storm --seconds N --seed S --mode M [--mask]`: readers in a storm.

Five readers (spans past the kernel's pages, mappings, walks, many small files, attributes) read a
mounted Dataset whose worker evicts all the time, while its processes are killed with SIGKILL: mount
processes at any moment; worker, supervisor and holder as soon as the others hold every fd. Prints
one JSON line; the exit code is 1 when a reader saw an error, a wrong byte or a hang.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from cacheop.api.errors import CacheopError
from tests.fakes.reader import sums
from tests.fakes.running_node import RunningNode, drop_kernel_caches

REPOSITORY = Path(__file__).parents[3]
READERS = ("read", "mmap", "walk", "many", "facts")
MODES = ("ZeroOpen", "Passthrough", "Fuse")
MASK = "37,39"  # INIT bits: passthrough, resend
KILLS = {"mount": 14, "worker": 2, "supervisor": 2, "holder": 2}
"""How often each is chosen, of 20."""
PAUSE_SECONDS = (0.05, 0.45)
EVICTED_PATHS = 12
FORGET_SECONDS = 1.5  # how often the kernel must forget names and inodes
HANG_SECONDS = 5.0
WATCH_SECONDS = 0.05
FILL_SECONDS = 0.5  # what waited for the worker comes this long after it is back
LATE_SECONDS = 30.0  # a reader that still has not ended then hangs for ever
MIB = 1 << 20


def write_files(directory: Path, rng: random.Random) -> dict[str, Any]:
    """Small files and some of several chunks; the catalog {path: [size, checksums]}."""
    sizes = {f"small/{i % 9}/{i:03d}": rng.randrange(1, 200_000) for i in range(240)}
    sizes |= {f"big/{i}": 10 * MIB + rng.randrange(12 * MIB) for i in range(4)}
    sizes |= {"empty": 0, "one": 1, "whole": 8 * MIB, "more": 8 * MIB + 1}
    catalog = {}
    for path, size in sizes.items():
        data = rng.randbytes(size)
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(data)
        catalog[path] = [size, sums(data)]
    return catalog


class Storm:
    """Kills, evictions and forgetting, one after the other, until the time is over."""

    def __init__(self, node: RunningNode, paths: list[str], rng: random.Random) -> None:
        self.node, self.paths, self.rng = node, paths, rng
        self.kills: list[tuple[float, str]] = []
        self.evictions = 0
        self.away: list[tuple[float, float]] = []
        """When no worker answered: what is not cached has to wait for the next one."""
        self._forget = 0.0

    def run(self, stop: float) -> None:
        watch = threading.Thread(target=self._watch, args=(stop,))
        watch.start()
        try:
            self._rage(stop)
        finally:
            watch.join()

    def _watch(self, stop: float) -> None:
        seen = time.monotonic()
        while time.monotonic() < stop:
            try:
                self.node.call("health", 5)
            except (CacheopError, OSError):
                time.sleep(WATCH_SECONDS)
                continue
            now = time.monotonic()
            if now - seen > 3 * WATCH_SECONDS:
                self.away.append((seen, now + FILL_SECONDS))
            seen = now
            time.sleep(WATCH_SECONDS)
        self.away.append((seen, float("inf")))

    def _rage(self, stop: float) -> None:
        while time.monotonic() < stop:
            time.sleep(self.rng.uniform(*PAUSE_SECONDS))
            self._evict()
            if time.monotonic() > self._forget + FORGET_SECONDS:
                drop_kernel_caches(2)
                self._forget = time.monotonic()
            self._kill(self.rng.choices(list(KILLS), list(KILLS.values()))[0])

    def _evict(self) -> None:
        with contextlib.suppress(CacheopError, OSError):  # the worker is away: that is the point
            self.node.call("evict", 5, paths=self.rng.sample(self.paths, EVICTED_PATHS))
            self.evictions += 1

    def _kill(self, role: str) -> None:
        if role != "mount":
            self.node.wait_whole(HANG_SECONDS * 2)
        found = self.node.pids()[role]
        if not found:
            return
        victim = self.rng.choice(found)
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, 9)
            self.kills.append((time.monotonic(), role))


def gaps_seconds(kills: list[tuple[float, str]], slow: list[tuple[float, float]]) -> list[float]:
    """For each kill, how long a reader waited from it on, before the next kill came. Pure."""
    ends = [at for at, _ in kills[1:]] + [float("inf")]
    return [
        max(
            (end - max(start, at) for start, end in slow if end > at and start < until), default=0.0
        )
        for (at, _), until in zip(kills, ends, strict=True)
    ]


def apart(
    slow: list[tuple[float, float]], away: list[tuple[float, float]]
) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """Waits while the worker was there, and waits that it had a part in. Pure."""
    its = [(a, b) for a, b in slow if any(a < end and b > start for start, end in away)]
    return [wait for wait in slow if wait not in set(its)], its


def share(values: list[float], fraction: float) -> float:
    """The value that `fraction` of `values` do not exceed. Pure."""
    ordered = sorted(values)
    return ordered[min(int(fraction * len(ordered)), len(ordered) - 1)] if ordered else 0.0


def in_ms(gaps: list[float]) -> dict[str, int]:
    """Median, 99th percentile and longest, in milliseconds. Pure."""
    three = share(gaps, 0.5), share(gaps, 0.99), max(gaps, default=0.0)
    return {name: round(1000 * gap) for name, gap in zip(("p50", "p99", "max"), three, strict=True)}


def summary(storm: Storm, found: list[dict[str, Any]], lost: list[str]) -> dict[str, Any]:
    """What is printed."""
    slow = [(float(a), float(b)) for one in found for a, b in one["slow"]]
    ours, of_the_worker = apart(slow, storm.away)
    gaps, longer = gaps_seconds(storm.kills, ours), gaps_seconds(storm.kills, of_the_worker)
    names = [name for _, name in storm.kills]
    wrong = [text for one in found for text in one["wrong"]]
    errors = [text for one in found for text in one["errors"]] + lost
    slowest = max((one["slowest"] for one in found), default=0.0)
    return {
        "kills": len(names),
        "kills_by_kind": {name: names.count(name) for name in KILLS},
        "evictions": storm.evictions,
        "reads": sum(one["operations"] for one in found),
        "reads_by_kind": {one["kind"]: one["operations"] for one in found},
        "errors": len(errors),
        "wrong": len(wrong),
        "hangs": sum(one["slowest"] > HANG_SECONDS for one in found) + len(lost),
        "gap_ms": in_ms(gaps),
        "gap_without_worker_ms": in_ms(longer),
        "slowest_seconds": round(slowest, 3),
        "examples": (wrong + errors)[:8],
    }


def start_readers(plan: dict[str, Any]) -> list[subprocess.Popen[bytes]]:
    """One process for each kind of reading."""
    return [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.fakes.storm_reader",
                json.dumps({**plan, "kind": kind, "seed": plan["seed"] + number}),
            ],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
        )
        for number, kind in enumerate(READERS)
    ]


def collect(
    readers: list[subprocess.Popen[bytes]], deadline: float
) -> tuple[list[dict[str, Any]], list[str]]:
    """What the readers found, and who did not end or died."""
    found, lost = [], []
    for kind, reader in zip(READERS, readers, strict=True):
        try:
            out, _ = reader.communicate(timeout=max(1.0, deadline - time.monotonic()))
            found.append(json.loads(out))
        except subprocess.TimeoutExpired:
            lost.append(f"{kind}: hangs")
        except ValueError:
            lost.append(f"{kind}: ended with {reader.returncode}")
    return found, lost


def rage(directory: Path, *, seconds: float, seed: int, mode: str, mask: bool) -> dict[str, Any]:
    """One storm below `directory`; the summary."""
    rng = random.Random(seed)
    catalog = write_files(directory / "origin", rng)
    (directory / "catalog.json").write_text(json.dumps(catalog))
    (directory / "mnt").mkdir()
    quota_bytes = sum(size for size, _ in catalog.values()) * 2 // 3
    node = RunningNode(
        directory / "node",
        f"file://{directory}/origin",
        [{"target": str(directory / "mnt"), "mode": mode, "version": ""}],
        spec={"cache": {"tiers": [{"medium": "Disk", "quota": str(quota_bytes)}]}},
    )
    readers: list[subprocess.Popen[bytes]] = []
    before = os.environ.pop("CACHEOP_MASK_INIT", None)
    if mask:
        os.environ["CACHEOP_MASK_INIT"] = MASK
    try:
        node.start()
        made = node.mount_at(directory / "mnt")
        plan = {
            "mount": made["target"],
            "version": made["version"],
            "catalog": str(directory / "catalog.json"),
            "seed": seed,
            "seconds": seconds,
        }
        readers = start_readers(plan)
        storm = Storm(node, sorted(catalog), rng)
        stop = time.monotonic() + seconds
        storm.run(stop)
        found, lost = collect(readers, stop + LATE_SECONDS)
        served = node.mount_at(directory / "mnt")
    finally:
        for reader in readers:
            reader.kill()
            reader.wait()
        node.close()
        os.environ.pop("CACHEOP_MASK_INIT", None)
        if before is not None:
            os.environ["CACHEOP_MASK_INIT"] = before
    log = node.log.read_text()
    return {
        "mode": mode,
        "served_as": served["mode"],
        "masked": mask,
        "seed": seed,
        "seconds": seconds,
        **summary(storm, found, lost),
        "tracebacks": log.count("Traceback"),
        "log": log[log.index("Traceback") - 200 :][:3000] if "Traceback" in log else "",
    }


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.node.mounts.storm")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--mode", choices=MODES, default="Passthrough")
    parser.add_argument("--mask", action="store_true", help="as on kernels before 6.9")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="cacheop-storm-") as directory:
        result = rage(
            Path(directory),
            seconds=options.seconds,
            seed=options.seed,
            mode=options.mode,
            mask=options.mask,
        )
    print(json.dumps(result))
    return int(bool(result["errors"] or result["wrong"] or result["hangs"]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
