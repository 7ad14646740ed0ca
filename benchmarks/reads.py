"""Warm reads through cacheop://, against the same files on the local disk and against s3fs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.report import Row, versus
from benchmarks.setting import child

if TYPE_CHECKING:
    from benchmarks.setting import Setting

# One reader process measures all ways in turn, in one order of files, everything in the page cache.
_SMALL = """
import json, os, random, sys, time
import fsspec
plain, rounds, endpoint, key, secret, *keys = sys.argv[1:]
random.Random(2).shuffle(keys)
ours = fsspec.filesystem("cacheop")
s3 = fsspec.filesystem("s3", key=key, secret=secret, endpoint_url=endpoint)
few = keys[:: max(1, len(keys) // 100)]

def timed(read, names):
    started = time.perf_counter()
    for name in names:
        if len(read(name)) != 112640:
            sys.exit(f"short read of {name}")
    return len(names) / (time.perf_counter() - started)

def local(name):
    with open(f"{plain}/{name}", "rb") as file:
        return file.read()

def cat(name):
    return ours.cat_file(f"reads/{name}")

def opened(name):
    with ours.open(f"cacheop://reads/{name}", "rb") as file:
        return file.read()

def straight(name):
    return s3.cat_file(f"bench/{name}")

ways = {"local": (local, keys), "cat": (cat, keys), "open": (opened, keys), "s3fs": (straight, few)}
for read, names in ways.values():
    timed(read, names)
found = {way: [] for way in ways}
for _ in range(int(rounds)):
    for way, (read, names) in ways.items():
        found[way].append(timed(read, names))
print(json.dumps(found), flush=True)
os._exit(0)
"""

_BIG = """
import json, mmap, os, sys, time, zlib
import fsspec
plain, rounds = sys.argv[1:]
ours = fsspec.filesystem("cacheop")

def by_mib(open_):
    started, total = time.perf_counter(), 0
    with open_() as file:
        while data := file.read(1 << 20):
            total += len(data)
    return total / (time.perf_counter() - started) / 1e6

def by_map(open_):
    started = time.perf_counter()
    with open_() as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        for at in range(0, len(view), 1 << 20):
            zlib.adler32(view[at : at + (1 << 20)])
        total = len(view)
    return total / (time.perf_counter() - started) / 1e6

def local():
    return open(f"{plain}/big/one.bin", "rb")

def cached():
    return ours.open("reads/big/one.bin", "rb")

found = {"local read": [], "read": [], "local mmap": [], "mmap": []}
for round_ in range(int(rounds) + 1):
    for name, measure, open_ in (
        ("local read", by_mib, local), ("read", by_mib, cached),
        ("local mmap", by_map, local), ("mmap", by_map, cached),
    ):
        value = measure(open_)
        if round_:
            found[name].append(value)
print(json.dumps(found), flush=True)
os._exit(0)
"""


def measure(setting: Setting) -> list[Row]:
    """Files a second and MB a second."""
    s3, rounds = setting.s3, str(setting.sizes.rounds)
    with setting.up("reads", setting.dataset("reads", "bench")):
        setting.cacheop("load", "reads")
        plain = str(setting.plain)
        arguments = (plain, rounds, s3.endpoint, s3.access_key, s3.secret_key)
        small = child(_SMALL, *arguments, *setting.small_keys)
        big = child(_BIG, plain, rounds)
    return [
        versus("warm 110 KB, cat_file, to ext4", "files/s", small["cat"], small["local"], 0.5),
        versus("warm 110 KB, open().read() to ext4", "files/s", small["open"], small["local"], 0.5),
        versus("warm 110 KB, cat_file, to s3fs", "files/s", small["cat"], small["s3fs"], 20),
        versus("warm big file by 1 MiB, to ext4", "MB/s", big["read"], big["local read"], 0.9),
        versus("warm big file, mmap, to ext4", "MB/s", big["mmap"], big["local mmap"], 0.9),
    ]
