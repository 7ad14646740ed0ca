"""What the worker does for mounts: publish, pins, records, space that readers hold."""

import fcntl
import hashlib
import json
import os
import random
import socket
import subprocess
import time

import pytest

from cacheop.api.errors import CacheopError
from cacheop.client.connection import connect_unix
from tests.fakes.running_worker import RunningWorker, s3_mount

pytestmark = pytest.mark.node

MIB = 1 << 20


def upload(s3, bucket, objects, tmp_path):
    folder = tmp_path / "upload"
    for path, data in objects.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    s3.upload(bucket, folder)


def objects(count, length):
    return {f"d{i % 4}/f{i:04}": random.Random(i).randbytes(length) for i in range(count)}


@pytest.fixture
def worker_over(tmp_path):
    made = []

    def make(mount, **arguments):
        made.append(RunningWorker(tmp_path / f"node-{len(made)}", [mount], **arguments))
        return made[-1]

    yield make
    for worker in made:
        worker.stop()


def test_publish_pin_evict_and_counts(s3, bucket, tmp_path, worker_over):
    name, files = bucket(), objects(20, 5000) | {"empty": b""}
    upload(s3, name, files, tmp_path)
    worker = worker_over(s3_mount(s3.endpoint, name))
    umask = os.umask(0o077)
    try:
        worker.start(ready=False)
    finally:
        os.umask(umask)
    found = worker.call("publish", version="")  # waits for the first version
    assert (found["complete"], found["cached_percentage"], found["mode"]) == (False, 0, "Auto")
    assert worker.call("load", paths=[])["phase"] == "Complete"
    directory = os.open(worker.root / found["data"], os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(directory, fcntl.LOCK_SH | fcntl.LOCK_NB)
        assert worker.call("publish", version=found["version"])["complete"]
        for path, data in files.items():
            inside = worker.root / found["data"] / path
            assert inside.read_bytes() == data
            assert inside.stat().st_mode & 0o777 == 0o644
        evicted = worker.call("evict", paths=[])
        assert (evicted["files"], evicted["pinned_files"]) == (0, 20)
        assert "unmount" in evicted["why"]
        client = connect_unix(worker.root / "client" / "client.sock")
        with pytest.raises(CacheopError, match="not served"):
            client.call("publish", {"version": ""}, time.monotonic() + 5)
        client.close()
        (worker.root / "mounts").mkdir()
        record = {"id": "m0", "target": "/mnt/x", "mode": "Native", "why": "asked for"}
        record["version"] = found["version"]
        (worker.root / "mounts" / "m0.json").write_text(json.dumps(record))
        worker.call("served", id="m0", requests={"LOOKUP": 7})
        assert worker.status()["mounts"] == [{**record, "requests": {"LOOKUP": 7}}]
        assert worker.metric("cacheop_mount_requests_total", mount="m0", op="LOOKUP") == 7
        assert worker.metric("cacheop_mount_info", mount="m0", mode="Native") == 1
    finally:
        os.close(directory)
    assert worker.call("evict", paths=[])["files"] == 20


def test_a_publish_that_nobody_waits_for_ends(s3, bucket, worker_over):
    name = bucket()
    worker = worker_over(s3_mount(s3.endpoint, name), spec={"suspend": True})
    worker.start(ready=False)
    for _ in range(20):
        with socket.socket(socket.AF_UNIX) as line:
            directory = os.open(worker.root, os.O_PATH)
            line.connect(f"/proc/self/fd/{directory}/worker.sock")
            os.close(directory)
            connection = connect_unix(worker.root / "worker.sock")
            connection.send("publish", {"version": ""}, time.monotonic() + 5)
            connection.close()
    assert worker.status()["phase"] == "Pending"  # and it still answers


def test_space_that_readers_hold_is_waited_for_not_evicted_for(s3, bucket, tmp_path, worker_over):
    """A small disk: the files of the first half are held open while the rest is read."""
    name, files = bucket(), objects(200, 200_000)  # 40 MB
    upload(s3, name, files, tmp_path)
    image, small = tmp_path / "small.img", tmp_path / "node-0" / "cache"
    with image.open("wb") as file:
        file.truncate(32 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", image], check=True)
    small.mkdir(parents=True)
    subprocess.run(["mount", "-o", "loop", image, small], check=True)
    held = []
    try:
        worker = worker_over(
            s3_mount(s3.endpoint, name),
            spec={"cache": {"tiers": [{"medium": "Disk", "quota": "1Gi"}]}},
        )
        worker.start()
        filesystem, paths = worker.filesystem(), sorted(files)
        data = worker.root / "data" / worker.status()["version"]

        def read(some):
            for path in some:
                digest = hashlib.sha256(filesystem.cat_file(f"data/{path}")).digest()
                assert digest == hashlib.sha256(files[path]).digest(), path

        read(paths[:100])
        here = [path for path in paths[:100] if (data / path).exists()]
        held += [(path, os.open(data / path, os.O_RDONLY)) for path in here]
        assert len(held) > 60
        read(paths[100:])
        time.sleep(2.5)
        before = worker.metric("cacheop_evicted_bytes_total", what="chunks")
        for _ in range(5):
            read(paths[100:120])
            time.sleep(1)
        after = worker.metric("cacheop_evicted_bytes_total", what="chunks")
        assert after - before <= 4 * MIB  # a few looks' worth, not the whole cache again and again
        assert worker.status()["cached_bytes"] > 8 * MIB
        for path, fd in held:
            assert os.pread(fd, 1 << 20, 0) == files[path]
            os.close(fd)
        held.clear()
        deadline = time.monotonic() + 30
        while worker.metric("cacheop_reading_through") and time.monotonic() < deadline:
            time.sleep(0.5)
        stored = worker.metric("cacheop_read_bytes_total", source="through")
        time.sleep(2)
        read(paths[:20])
        read(paths[:20])
        assert worker.metric("cacheop_read_bytes_total", source="through") - stored <= 4 * MIB
    finally:
        for _, fd in held:
            os.close(fd)
        worker.stop()
        subprocess.run(["umount", "--lazy", small], check=True)
