"""Three shuffled epochs that fit, from an empty cache: how much of it leaves the origin."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from benchmarks.report import Row, exactly
from benchmarks.setting import child

if TYPE_CHECKING:
    from benchmarks.setting import Setting

# Eight threads, as a training job's loader reads; every byte is counted.
_EPOCHS = """
import json, os, random, sys
from concurrent.futures import ThreadPoolExecutor
import fsspec
root, *keys = sys.argv[1:]

def read(key):
    with fsspec.open(f"{root}/{key}", "rb") as file:
        return len(file.read())

total = 0
with ThreadPoolExecutor(8) as pool:
    for epoch in range(3):
        random.Random(epoch).shuffle(keys)
        total += sum(pool.map(read, keys))
print(json.dumps(total), flush=True)
os._exit(0)
"""


def measure(setting: Setting) -> list[Row]:
    """Origin bytes as a multiple of the Dataset."""
    rows = []
    file = setting.dataset("epochs", "bench")
    mount = setting.directory / "mnt-epochs"
    ways = [("cacheop://", "cacheop://epochs", ())]
    if os.geteuid() == 0 and os.path.exists("/dev/fuse"):
        ways.append(("mount", str(mount), ("--mount", str(mount))))
    keys = [*setting.small_keys, "big/one.bin"]
    for label, root, arguments in ways:
        with setting.up("epochs", file, *arguments):
            read = child(_EPOCHS, root, *keys)
            status = setting.status("epochs")
        if read != 3 * status["bytes_total"]:
            raise RuntimeError(f"read {read} bytes of 3 x {status['bytes_total']}")
        ratio = status["origin_bytes"] / status["bytes_total"]
        rows.append(exactly(f"origin bytes of 3 epochs, {label}", "x Dataset", ratio, 1.0))
    return rows
