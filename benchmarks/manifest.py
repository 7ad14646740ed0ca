"""How long a million keys take: listing into a version, opening it, looking something up.

The server is a stand-in that answers ListObjectsV2 from memory in a process of its own, so it is
not the measure; a smaller listing comes from the real server. The baseline is obstore's own listing
of the same server, likewise a whole process from start to exit: by `obstore.list` as it is, and,
for information, by its quickest way, into Arrow columns.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.keys import resident
from benchmarks.list_stub import key_of
from benchmarks.report import Row, at_most, in_time
from benchmarks.setting import in_turn
from cacheop.api.index import ROOT, Index

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from benchmarks.setting import Setting

MIB = 1 << 20
LISTING_AT_MOST = 1.3  # x obstore's own time, for as many keys as this:
MILLION = 1_000_000  # below, starting a process weighs more than listing
LOOKUPS = 20_000
RUN_SECONDS = 300
FILES_A_FOLDER = 1000

_OBSTORE = """
import json, sys, obstore
from obstore.store import S3Store
about = json.loads(sys.argv[1])
arrow = {"return_arrow": True, "chunk_size": 10_000} if sys.argv[2] == "arrow" else {}
who = {"skip_signature": True} if about.get("anon") else {
    "access_key_id": about["key"], "secret_access_key": about["secret"]}
store = S3Store(about["bucket"], endpoint=about["endpoint_url"], region="us-east-1", **who,
    virtual_hosted_style_request=False, client_options={"allow_http": True})
batches = obstore.list(store, **arrow)
print(sum(batch.num_rows if arrow else len(batch) for batch in batches))
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


def measure(setting: Setting) -> list[Row]:
    """All rows."""
    keys, rounds, directory = setting.sizes.keys, setting.sizes.rounds, setting.directory / "keys"
    with list_stub(keys) as endpoint:
        options = {"endpoint_url": endpoint, "anon": True}
        rows = compare_listing(f"{keys:,} keys", "stub", options, keys, rounds, directory)
        root = directory / "again"
        version = _index("stub", options, root)[2]["version"]
        rows += _reading(root, version, keys, rounds)
        rows.append(_next_version(root, version, rounds))
        shutil.rmtree(root)
        rows += resident(setting, options, keys)
    return rows + _real_server(setting, directory)


def _real_server(setting: Setting, directory: Path) -> list[Row]:
    """Many small objects on the S3 server, listed."""
    s3, keys = setting.s3, setting.sizes.real_keys
    folder = directory / "objects"
    for number in range(keys):
        path = folder / f"{number // FILES_A_FOLDER:03d}" / f"{number:06d}.txt"
        if number % FILES_A_FOLDER == 0:
            path.parent.mkdir(parents=True)
        path.write_bytes(b"%d" % number)
    s3.upload("keys", folder)
    shutil.rmtree(folder)
    options = {"endpoint_url": s3.endpoint, "key": s3.access_key, "secret": s3.secret_key}
    what = f"{keys:,} keys, real server"
    return compare_listing(what, "keys", options, keys, setting.sizes.rounds, directory)[:2]


def compare_listing(
    what: str, bucket: str, options: dict[str, Any], keys: int, rounds: int, directory: Path
) -> list[Row]:
    """Our listing and obstore's in turn, and what ours takes in memory and on disk."""
    root = directory / "version"
    memory: list[float] = []
    disk: list[float] = []

    def ours() -> float:
        shutil.rmtree(root, ignore_errors=True)
        seconds, peak_mib, result = _index(bucket, options, root)
        if result["files"] != keys:
            raise RuntimeError(f"listed {result['files']}, not {keys} keys")
        memory.append(peak_mib)
        index = root / "manifest" / f"{result['version']}.index"
        disk.append(index.stat().st_size / MIB)
        return seconds

    plain = _obstore(bucket, options, keys, "dicts")
    arrow = _obstore(bucket, options, keys, "arrow")
    found, as_dicts, as_arrow = in_turn(rounds, ours, plain, arrow)
    shutil.rmtree(root)
    goal = LISTING_AT_MOST if keys >= MILLION else None
    return [
        in_time(f"index {what}, to obstore.list", "s", found, as_dicts, goal),
        in_time(f"index {what}, to obstore's Arrow", "s", found, as_arrow, None),
        at_most(f"peak memory of the index child, {what}", "MiB", memory, 1024),
        at_most(f"index file, {what}", "MiB", disk, 200),
    ]


def _obstore(bucket: str, options: dict[str, Any], keys: int, way: str) -> Callable[[], float]:
    """Times obstore's listing in a process of its own."""
    about = json.dumps({**options, "bucket": bucket})

    def run() -> float:
        started = time.perf_counter()
        counted = subprocess.run(
            [sys.executable, "-c", _OBSTORE, about, way],
            capture_output=True,
            check=True,
            timeout=RUN_SECONDS,
        )
        seconds = time.perf_counter() - started
        if int(counted.stdout) != keys:
            raise RuntimeError(f"obstore listed {counted.stdout!r}, not {keys} keys")
        return seconds

    return run


def _index(bucket: str, options: dict[str, Any], root: Path) -> tuple[float, float, dict[str, Any]]:
    """(seconds of the whole process, its peak MiB, its last line)."""
    root.mkdir(parents=True, exist_ok=True)
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
    allot(index, [(index, slots)])  # the first one imports, too
    for _ in range(rounds):
        started = time.perf_counter()
        allot(index, [(index, slots)])
        seconds.append(time.perf_counter() - started)
    return at_most("slots of a version beside a kept one", "s", seconds, 5)
