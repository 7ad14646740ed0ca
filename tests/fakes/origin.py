"""An origin in memory that works: etags, changed objects, errors on demand, requests counted."""

import asyncio
import hashlib

from cache_worker.manifest import Builder, MountPoint
from cache_worker.origins import Listing
from cache_worker.version_files import write_version
from cacheop.api.errors import OriginChanged, OriginError

URI = "s3://memory/"


class MemoryOrigin:
    """`objects`: key -> bytes. `errors`: key -> CacheopError to raise instead of answering."""

    def __init__(self, objects):
        self.objects = dict(objects)
        self.errors = {}
        self.fetched = []
        self.gate = asyncio.Event()
        self.gate.set()

    def etag(self, key):
        return '"' + hashlib.sha256(self.objects[key]).hexdigest()[:32] + '"'

    def list_objects(self):
        keys = sorted(self.objects)
        sizes = [len(self.objects[key]) for key in keys]
        tags = [self.etag(key) for key in keys]
        yield Listing(keys, sizes, [10**18] * len(keys), tags, [""] * len(keys))

    async def fetch(self, obj, offset, length, arrived=None):
        """Tells of the first half as soon as it is asked, of the rest when the gate opens."""
        data = self.objects.get(obj.key, b"")[offset : offset + length]
        if arrived is not None and self.etag(obj.key) == obj.etag:
            arrived(0, memoryview(data)[: length // 2])
        await self.gate.wait()
        if arrived is not None and self.etag(obj.key) == obj.etag:
            arrived(0, memoryview(data))
        await asyncio.sleep(0)
        self.fetched.append((obj.key, offset, length))
        if obj.key in self.errors:
            raise self.errors[obj.key]
        if obj.key not in self.objects or self.etag(obj.key) != obj.etag:
            raise OriginChanged(f"{obj.key} is another object now")
        data = self.objects[obj.key][offset : offset + length]
        if len(data) != length:
            raise OriginError(f"{obj.key} is short")
        return data

    async def check(self):
        pass

    async def close(self):
        pass

    def index(self, root):
        """Write the version that the objects are now below `root`; its name."""
        builder = Builder([MountPoint(URI, "/")])
        for listing in self.list_objects():
            builder.add(0, listing)
        manifest = builder.finish()
        write_version(root, manifest)
        return manifest.version
