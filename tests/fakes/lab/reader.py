"""`python -m tests.fakes.lab.reader`: reads a Dataset in an order of its own, and checks it.

PLAN is one line of JSON on standard input: {"cache": root, "catalog": path of [[path, offset,
length, xxh3-64]…], "seed", "threads", "epochs"}. Says "ready", waits for one more line, reads to
the end or until another line comes, and prints one line of JSON: {"began", "ended", "bytes",
"cpu_seconds", "reads": [[monotonic moment of its end, seconds, bytes]…], "wrong": […], "errors":
[…]}.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
import traceback
from typing import Any

import xxhash

from cacheop.client.filesystem import CacheopFileSystem

DATASET = "data"
TOLD = 20  # how many errors are told in full


def work(
    plan: dict[str, Any], items: list[Any], found: dict[str, list[Any]], stop: threading.Event
) -> None:
    """One thread's pieces, in order. Lists are shared: append is atomic."""
    filesystem = CacheopFileSystem(cache=plan["cache"], skip_instance_cache=True)
    for path, offset, length, checksum in items:
        began = time.monotonic()
        if stop.is_set():
            return
        try:
            data = filesystem.cat_file(f"{DATASET}/{path}", offset, offset + length)
        except Exception as error:
            text = traceback.format_exc(limit=-2) if len(found["errors"]) < TOLD else repr(error)
            found["errors"].append([time.monotonic(), path, offset, text])
            continue
        ended = time.monotonic()
        found["reads"].append([ended, ended - began, len(data)])
        if len(data) != length or xxhash.xxh3_64_hexdigest(data) != checksum:
            found["wrong"].append([ended, path, offset, len(data)])


def listen(stop: threading.Event) -> None:
    """Until a line comes; the end of the input is none."""
    if sys.stdin.readline():
        stop.set()


def main() -> None:
    """Read as planned."""
    plan = json.loads(sys.stdin.readline())
    with open(plan["catalog"], encoding="utf-8") as file:
        catalog = json.load(file)
    source, items = random.Random(plan["seed"]), []
    for _ in range(plan["epochs"]):
        items += source.sample(catalog, len(catalog))
    CacheopFileSystem(cache=plan["cache"]).ls(DATASET)  # bound before the start
    print("ready", flush=True)
    sys.stdin.readline()
    found: dict[str, list[Any]] = {"reads": [], "wrong": [], "errors": []}
    began, cpu = time.monotonic(), time.process_time()
    stop = threading.Event()
    threading.Thread(target=listen, args=(stop,), daemon=True).start()
    shares = [items[n :: plan["threads"]] for n in range(plan["threads"])]
    threads = [threading.Thread(target=work, args=(plan, share, found, stop)) for share in shares]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = {
        "began": began,
        "ended": time.monotonic(),
        "bytes": sum(length for _, _, length in found["reads"]),
        "cpu_seconds": time.process_time() - cpu,
    }
    print(json.dumps({**told, **found}))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
