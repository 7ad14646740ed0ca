"""`python -m tests.fakes.reader PLAN`: reads random files and spans and compares their checksums.

PLAN is JSON: {"seed", "seconds", "mount": directory or "", "cache": root, "version", "catalog":
path}. The catalog is JSON {path: [size, [crc32 of each 64 KiB]]}, so that the right bytes of any
span are known without keeping them. Prints one JSON line: {"reads", "wrong": […], "errors": […]}.
"""

import json
import os
import random
import sys
import time
import traceback
import zlib

from cacheop.client.filesystem import CacheopFileSystem

BLOCK_BYTES = 64 << 10
BIG_SPAN_BLOCKS = 40


def sums(data):
    return [zlib.crc32(data[at : at + BLOCK_BYTES]) for at in range(0, len(data), BLOCK_BYTES)]


class MountReader:
    def __init__(self, plan):
        self.top = plan["mount"]

    def read(self, path, offset, length):
        fd = os.open(f"{self.top}/{path}", os.O_RDONLY)
        try:
            parts = []
            while length:
                part = os.pread(fd, min(length, 1 << 20), offset)
                if not part:
                    break
                parts.append(part)
                offset, length = offset + len(part), length - len(part)
            return b"".join(parts)
        finally:
            os.close(fd)


class ClientReader:
    def __init__(self, plan):
        self.fs = CacheopFileSystem(cache=plan["cache"], skip_instance_cache=True)
        self.base = f"data@{plan['version']}"

    def read(self, path, offset, length):
        if offset % 2:  # both ways
            return self.fs.cat_file(f"{self.base}/{path}", offset, offset + length)
        with self.fs.open(f"{self.base}/{path}") as file:
            file.seek(offset)
            return file.read(length)


def main(plan):
    with open(plan["catalog"]) as file:
        catalog = json.load(file)
    rng = random.Random(plan["seed"])
    reader = MountReader(plan) if plan["mount"] else ClientReader(plan)
    paths = sorted(catalog)
    reads, wrong, errors, slowest = 0, [], [], 0.0
    stop = time.monotonic() + plan["seconds"]
    while time.monotonic() < stop:
        path = rng.choice(paths)
        size, right = catalog[path]
        first = rng.randrange(len(right)) if rng.random() < 0.7 and len(right) > 1 else 0
        count = rng.randrange(1, BIG_SPAN_BLOCKS) if first or len(right) > 100 else len(right)
        offset, length = first * BLOCK_BYTES, min(count * BLOCK_BYTES, size - first * BLOCK_BYTES)
        started = time.monotonic()
        try:
            data = reader.read(path, offset, length)
        except OSError as error:
            errors.append([path, type(error).__name__, error.errno, traceback.format_exc(limit=-3)])
            continue
        slowest = max(slowest, time.monotonic() - started)
        reads += 1
        if len(data) != length or sums(data) != right[first : first + count]:
            zeros = data.count(0) == len(data)
            wrong.append([path, offset, length, len(data), "zeros" if zeros else "other bytes"])
    print(json.dumps({"reads": reads, "wrong": wrong, "errors": errors, "slowest": slowest}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
