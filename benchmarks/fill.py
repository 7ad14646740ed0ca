"""Filling the cache from S3, against plain obstore that writes the same objects to files."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from benchmarks.report import Row, versus
from benchmarks.setting import SMALL_BYTES, Setting, child, in_turn
from cacheop.api.chunk import CHUNK_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

# A process of its own, because the worker is one too. As many requests in flight as the worker has.
_PLAIN_OBSTORE = """
import asyncio, json, os, shutil, sys, time
import obstore
from obstore.store import S3Store
endpoint, key, secret, out, what, chunk = sys.argv[1:7]
store = S3Store("bench", endpoint=endpoint, access_key_id=key, secret_access_key=secret,
                region="us-east-1", client_options={"allow_http": True},
                virtual_hosted_style_request=False)
found = [o for batch in obstore.list(store, prefix=what) for o in batch]
shutil.rmtree(out, ignore_errors=True)
for o in found:
    os.makedirs(os.path.dirname(f"{out}/{o['path']}"), exist_ok=True)
chunk = int(chunk)

async def small(o, places):
    async with places:
        data = await (await obstore.get_async(store, o["path"])).bytes_async()
        with open(f"{out}/{o['path']}", "wb", buffering=0) as file:
            file.write(data)

async def piece(o, fd, offset, places):
    async with places:
        length = min(chunk, o["size"] - offset)
        data = await obstore.get_range_async(store, o["path"], start=offset, length=length)
        await asyncio.to_thread(os.pwrite, fd, data, offset)

async def main():
    places = asyncio.Semaphore(32 if what.startswith("small") else 12)
    if what.startswith("small"):
        await asyncio.gather(*(small(o, places) for o in found))
        return
    for o in found:
        fd = os.open(f"{out}/{o['path']}", os.O_WRONLY | os.O_CREAT)
        await asyncio.gather(*(piece(o, fd, at, places) for at in range(0, o["size"], chunk)))
        os.close(fd)

started = time.perf_counter()
asyncio.run(main())
print(json.dumps(sum(o["size"] for o in found) / (time.perf_counter() - started)), flush=True)
os._exit(0)
"""


def measure(setting: Setting) -> list[Row]:
    """Bytes a second, both ways, in turn."""
    file = setting.dataset("fill", "bench")
    rows: list[Row] = []
    with setting.up("fill", file):
        for what, label in (("small", "fill, 110 KB files"), ("big", "fill, 8 MiB chunks")):
            ours, plain = in_turn(setting.sizes.rounds, _ours(setting, what), _plain(setting, what))
            unit = 1 / SMALL_BYTES if what == "small" else 1e-6
            rows.append(
                versus(
                    label,
                    "files/s" if what == "small" else "MB/s",
                    [value * unit for value in ours],
                    [value * unit for value in plain],
                    0.8,
                )
            )
    return rows


def _plain(setting: Setting, what: str) -> Callable[[], float]:
    s3, out = setting.s3, str(setting.directory / "obstore")
    arguments = (s3.endpoint, s3.access_key, s3.secret_key, out, what, str(CHUNK_BYTES))
    return lambda: float(child(_PLAIN_OBSTORE, *arguments))


def _ours(setting: Setting, what: str) -> Callable[[], float]:
    """Time the worker's own load, from an evicted cache."""

    def run() -> float:
        setting.cacheop("evict", "fill", "--path", what, "--yes")
        time.sleep(0.2)
        report = json.loads(setting.cacheop("load", "fill", "--path", what, "-o", "json"))
        found = report["nodes"][0] if "nodes" in report else report
        if found["phase"] != "Complete":
            raise RuntimeError(f"load ended as {found['phase']}: {found['failed'][:3]}")
        return float(found["rate_bytes_per_second"])

    return run
