"""From nothing to the first byte: `cacheop up` of a small Dataset, then one read."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from benchmarks.report import Row, at_most
from benchmarks.setting import child, in_turn

if TYPE_CHECKING:
    from benchmarks.setting import Setting

ROUNDS = 3

_FIRST_BYTE = """
import json, os, sys
import fsspec
with fsspec.open(sys.argv[1], "rb") as file:
    print(json.dumps(len(file.read(1))), flush=True)
os._exit(0)
"""


def measure(setting: Setting) -> list[Row]:
    """Seconds, with an empty cache and with the cache of the run before."""
    file = setting.dataset("start", "bench", "small/000/")
    cache = ("--cache", str(setting.directory / "cache-start"))
    url = "cacheop://start/00000.jpg"

    def once(*down: str) -> float:
        started = time.perf_counter()
        setting.cacheop("up", "-f", str(file), *cache)
        try:
            if child(_FIRST_BYTE, url) != 1:
                raise RuntimeError("no byte")
            return time.perf_counter() - started
        finally:
            setting.cacheop("down", "start", *down)

    # In turn: the first finds no cache, the second finds the first one's and takes it away.
    cold, warm = in_turn(ROUNDS, once, lambda: once("--purge", "--yes"))
    return [
        at_most("`cacheop up` to first byte, empty cache", "s", cold, 3),
        at_most("`cacheop up` to first byte, kept cache", "s", warm, 3),
    ]
