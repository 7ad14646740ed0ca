"""How long a million keys take: listing into a version, opening it, looking something up.

`python -m benchmarks.manifest [--quick]`, or `measure` from the common bench. The server is a
stand-in that answers ListObjectsV2 from memory in a process of its own, so it is not the measure;
`compare_listing` takes any other server too. The baseline is obstore's own listing of that server,
likewise a whole process from start to exit.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.list_stub import key_of
from benchmarks.report import Row, at_most, show, spread, write
from cacheop.api.index import ROOT, Index

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20
LISTING_AT_MOST = 1.3  # x obstore's own time
LOOKUPS = 20_000
RUN_SECONDS = 300

_OBSTORE = """
import sys, obstore
from obstore.store import S3Store
store = S3Store(sys.argv[2], endpoint=sys.argv[1], region="us-east-1", skip_signature=True,
    virtual_hosted_style_request=False, client_options={"allow_http": True})
print(sum(len(batch) for batch in obstore.list(store, chunk_size=10_000)))
"""


@contextmanager
def list_stub(keys: int) -> Iterator[str]:
    """The endpoint of a stand-in for S3 with that many keys."""
    command = [sys.executable, "-m", "benchmarks.list_stub", str(keys)]
    stub = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert stub.stdout is not None
        yield f"http://127.0.0.1:{int(stub.stdout.readline())}"
    finally:
        stub.communicate()  # closing its input ends it


def measure(keys: int, rounds: int, directory: Path) -> list[Row]:
    """All rows, with the stand-in; `directory` is for the versions and is left empty."""
    with list_stub(keys) as endpoint:
        rows = compare_listing(f"{keys:,} keys (stub)", endpoint, "stub", keys, rounds, directory)
        root = directory / "again"
        version = _index(endpoint, "stub", root)[2]["version"]
        rows += _reading(root, version, keys, rounds)
        rows.append(_next_version(root, version, rounds))
        shutil.rmtree(root)
    return rows


def compare_listing(
    what: str, endpoint: str, bucket: str, keys: int, rounds: int, directory: Path
) -> list[Row]:
    """Our listing and obstore's in turn, and what ours takes in memory and on disk."""
    ours, theirs, memory, disk = [], [], [], 0.0
    for _ in range(rounds):
        root = directory / "version"
        started = time.perf_counter()
        counted = subprocess.run(
            [sys.executable, "-c", _OBSTORE, endpoint, bucket],
            capture_output=True,
            check=True,
            timeout=RUN_SECONDS,
        )
        theirs.append(time.perf_counter() - started)
        seconds, peak_mib, result = _index(endpoint, bucket, root)
        if int(counted.stdout) != keys or result["files"] != keys:
            raise RuntimeError(f"listed {result['files']} and {counted.stdout!r}, not {keys} keys")
        ours.append(seconds)
        memory.append(peak_mib)
        disk = (root / "manifest" / f"{result['version']}.index").stat().st_size / MIB
        shutil.rmtree(root)
    value, baseline = statistics.median(ours), statistics.median(theirs)
    ratio, goal = value / baseline, f"<= {LISTING_AT_MOST} x obstore's listing"
    met = ratio <= LISTING_AT_MOST
    return [
        Row(f"index child, {what}", value, "s", baseline, ratio, goal, met, spread(ours)),
        at_most(f"peak memory of the index child, {what}", "MiB", memory, 1024),
        at_most(f"index file, {what}", "MiB", [disk], 200),
    ]


def _index(endpoint: str, bucket: str, root: Path) -> tuple[float, float, dict[str, Any]]:
    """(seconds of the whole process, its peak MiB, its last line)."""
    root.mkdir(parents=True, exist_ok=True)
    options = {"endpoint_url": endpoint, "anon": True}
    dataset = {
        "apiVersion": "cacheop.io/v1alpha1",
        "kind": "Dataset",
        "metadata": {"name": "bench"},
        "spec": {"mounts": [{"mountPoint": f"s3://{bucket}/", "options": options}]},
    }
    about = {"namespace": "default", "name": "bench", "node": "node-0"}
    config = root / "config.json"
    config.write_text(
        json.dumps({**about, "dataset": dataset, "root": str(root), "secrets": str(root)})
    )
    started = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, "-m", "cache_worker", "index", str(config)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    last = child.stdout.read().splitlines()[-1]
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - started
    child.stdout.close()
    result = json.loads(last)
    if child.returncode:
        raise RuntimeError(f"the index child failed: {result}")
    return seconds, usage.ru_maxrss / 1024, result


def _reading(root: Path, version: str, keys: int, rounds: int) -> list[Row]:
    path = root / "manifest" / f"{version}.index"
    numbers = random.Random(1).choices(range(keys), k=LOOKUPS)
    wanted = [key_of(number, keys, siblings=False) for number in numbers]
    opened, resolved, looked_up = [], [], []
    for _ in range(rounds):
        with path.open("rb") as file:
            started = time.perf_counter()
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            index = Index(memoryview(mapped))
            opened.append((time.perf_counter() - started) * 1e3)
        started = time.perf_counter()
        for key in wanted:
            assert index.resolve(key) is not None
        resolved.append((time.perf_counter() - started) / LOOKUPS * 1e6)
        parents = [index.resolve(key.rpartition("/")[0]) for key in wanted]
        names = [key.rpartition("/")[2].encode() for key in wanted]
        started = time.perf_counter()
        for parent, name in zip(parents, names, strict=True):
            assert index.lookup(ROOT if parent is None else parent, name) is not None
        looked_up.append((time.perf_counter() - started) / LOOKUPS * 1e6)
        index.release()
        mapped.close()
    return [
        at_most(f"open the index of {keys:,} keys", "ms", opened, 1000),
        at_most("one lookup (directory, name)", "us", looked_up, 20),
        at_most("one path to its row", "us", resolved, 20),
    ]


def _next_version(root: Path, version: str, rounds: int) -> Row:
    """The slots of a version that is listed beside a kept one with the same million files."""
    from cache_worker.slots import allot
    from cache_worker.version_files import open_index, open_slots

    index, slots, seconds = open_index(root, version), open_slots(root, version), []
    for _ in range(rounds):
        started = time.perf_counter()
        allot(index, [(index, slots)])
        seconds.append(time.perf_counter() - started)
    return at_most("slots of a version beside a kept one", "s", seconds, 5)


def main(*, quick: bool) -> int:
    """Print the table, write results/manifest.json; 1 when a goal is not met."""
    keys, rounds = (100_000, 3) if quick else (1_000_000, 3)
    with tempfile.TemporaryDirectory(prefix="cacheop-bench-") as directory:
        rows = measure(keys, rounds, Path(directory))
    show("Manifest", rows)
    print(f"written to {write('manifest', rows)}")
    return 0 if all(row.met is not False for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(quick="--quick" in sys.argv[1:]))
