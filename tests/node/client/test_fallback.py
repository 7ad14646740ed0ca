"""The worker is killed while clients read: with fallback=True the origin takes over, unmixed."""

from __future__ import annotations

import random
import time

import pytest

from cacheop.api.chunk import CHUNK_BYTES
from cacheop.api.errors import OriginChanged, WorkerUnavailable
from cacheop.client.filesystem import CacheopFileSystem
from cacheop.client.link import Patience
from tests.fakes.running_worker import RunningWorker, s3_mount

pytestmark = pytest.mark.node


def test_a_killed_worker_is_replaced_by_its_s3_origin(s3, bucket, tmp_path) -> None:
    name, rng = bucket(), random.Random(5)
    files = {"big": rng.randbytes(CHUNK_BYTES + 5), "a": b"old" * 100, "b": b"bbb", "cached": b"c"}
    for path, data in files.items():
        s3.http.put(name, path, data)
    mount = s3_mount(s3.endpoint, name)
    with RunningWorker(tmp_path / "w", [mount]) as running:
        fs = CacheopFileSystem(
            cache=str(running.root),
            fallback=True,
            origin=mount["mountPoint"],
            origin_options=mount["options"],
            skip_instance_cache=True,
        )
        plain = CacheopFileSystem(
            cache=str(running.root),
            patience=Patience(reconnect_seconds=0.3, away_seconds=0.3),
            skip_instance_cache=True,
        )
        assert fs.cat_file("data/cached") == plain.cat_file("data/cached") == b"c"
        running.kill()
        started = time.monotonic()
        assert fs.cat_file("data/big") == files["big"]
        with fs.open("data/b") as file:
            assert file.read() == b"bbb"
        assert time.monotonic() - started < 15
        s3.http.put(name, "a", b"new" * 100)  # the same size
        with pytest.raises(OriginChanged, match="etag"):
            fs.cat_file("data/a")
        assert plain.cat_file("data/cached") == b"c"
        with pytest.raises(WorkerUnavailable):
            plain.cat_file("data/b")
