"""The worker as a process, over a real S3 server: what must hold when things go wrong."""

import errno
import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from cacheop.api import wire
from cacheop.api.errors import CacheopError, CredentialError, OriginError, SuspendedError
from cacheop.api.tokens import client_token
from cacheop.client.connection import connect_tcp, connect_unix
from examples.demo.server import S3Server
from tests.fakes.fault_proxy import Cut, FaultProxy, Status, Truncate
from tests.fakes.running_worker import RunningWorker, maps, s3_mount

pytestmark = pytest.mark.node

MIB = 1 << 20


def files(count=60, big=20 * MIB):
    source = random.Random(11)
    found = {f"d{i % 5}/f{i:04}": source.randbytes(20_000 + 100 * i) for i in range(count)}
    found["big.bin"] = source.randbytes(big + 17)
    found["empty"] = b""
    return found


def put(s3, bucket, objects, tmp_path):
    folder = tmp_path / f"upload-{time.monotonic_ns()}"
    for path, data in objects.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    s3.upload(bucket, folder)


def digest(data):
    return hashlib.sha256(data).hexdigest()


def assert_all(filesystem, objects):
    for path, data in objects.items():
        assert digest(filesystem.cat_file(f"data/{path}")) == digest(data), path


@pytest.fixture
def worker_over(tmp_path):
    """Makes workers that are stopped at the end, whatever the test does."""
    made = []

    def make(*mounts, **arguments):
        worker = RunningWorker(tmp_path / f"node-{len(made)}", list(mounts), **arguments)
        made.append(worker)
        return worker

    yield make
    for worker in made:
        worker.stop()


def test_killed_while_filling_nothing_is_served_that_was_not_whole(
    s3, bucket, tmp_path, worker_over
):
    name, objects = bucket(), files(400, 60 * MIB)
    put(s3, name, objects, tmp_path)
    worker = worker_over(s3_mount(s3.endpoint, name))
    worker.start()
    for delay in (0.05, 0.1, 0.2, 0.3):
        connection = connect_unix(worker.root / "worker.sock")
        connection.send("load", {"paths": []}, time.monotonic() + 5)
        time.sleep(delay)
        worker.kill()
        connection.close()
        worker.start()
    assert worker.status()["cached_bytes"] > 0
    assert_all(worker.filesystem(), objects)
    assert worker.call("load", paths=[])["phase"] == "Complete"
    assert_all(worker.filesystem(), objects)
    assert worker.metric("cacheop_store_errors_total", op="verify") == 0


@pytest.mark.parametrize("how", ["refused", "black hole"])
def test_without_the_origin_it_is_up_in_two_seconds_and_cached_reads_succeed(
    tmp_path, worker_over, how
):
    objects = files()
    with S3Server(tmp_path / "s3") as s3:
        put(s3, "gone", objects, tmp_path)
        timeouts = {"connect_timeout": 2, "read_timeout": 2}
        worker = worker_over(s3_mount(s3.endpoint, "gone", config_kwargs=timeouts))
        worker.start()
        del objects["d0/f0000"]
        assert_all(worker.filesystem(), objects)
        worker.kill()
    with socket.socket() as hole:
        if how == "black hole":  # connections are taken and never answered
            hole.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            hole.bind(("127.0.0.1", s3.port))
            hole.listen(64)
        assert worker.start() <= 2
        assert_all(worker.filesystem(), objects)
        started = time.monotonic()
        with pytest.raises(OriginError) as caught:
            worker.filesystem().cat_file("data/d0/f0000")
        assert time.monotonic() - started < 40
        assert caught.value.errno in {errno.EIO, errno.ETIMEDOUT}
        assert worker.condition("OriginReachable")["status"] == "False"
        assert worker.condition("Ready")["status"] == "True"


def test_a_version_with_five_percent_changed_moves_five_percent(s3, bucket, tmp_path, worker_over):
    name, objects = bucket(), files(100, 1000)
    put(s3, name, objects, tmp_path)
    worker = worker_over(s3_mount(s3.endpoint, name))
    worker.start()
    old = worker.status()["version"]
    assert worker.call("load", paths=[])["phase"] == "Complete"
    before = dict(objects)
    changed = [f"d{i % 5}/f{i:04}" for i in range(40, 45)]
    objects.update({path: random.Random(path).randbytes(len(objects[path])) for path in changed})
    put(s3, name, {path: objects[path] for path in changed}, tmp_path)
    result = worker.call("refresh")
    assert result["changed"]
    assert worker.call("load", paths=[])["phase"] == "Complete"
    total = sum(map(len, objects.values()))
    assert worker.status()["origin_bytes"] <= 0.06 * total
    assert worker.status()["origin_bytes"] == sum(len(objects[path]) for path in changed)
    assert_all(worker.filesystem(), objects)

    def old_version(path):
        return worker.filesystem().cat_file(f"data@{old}/{path}")

    # Evicting in one version never harms the other, in both directions.
    worker.call("evict", paths=["d0", "d1"])
    assert_all(worker.filesystem(), objects)
    for path, data in before.items():
        if path not in changed:
            assert old_version(path) == data
    worker.call("evict", version=old)
    assert [v["version"] for v in worker.call("versions")["versions"]] == [result["version"]]
    suspended = worker.call("suspend")
    assert suspended == {}
    assert_all(worker.filesystem(), objects)
    assert not (worker.root / "data" / old).exists()


def test_suspend_survives_a_restart(s3, bucket, tmp_path, worker_over):
    name, objects = bucket(), files(5, 1000)
    put(s3, name, objects, tmp_path)
    worker = worker_over(s3_mount(s3.endpoint, name))
    worker.start()
    worker.filesystem().cat_file("data/d0/f0000")
    worker.call("suspend")
    worker.stop()
    worker.start()
    assert worker.filesystem().cat_file("data/d0/f0000") == objects["d0/f0000"]
    with pytest.raises(SuspendedError):
        worker.filesystem().cat_file("data/d1/f0001")
    worker.call("resume")
    assert_all(worker.filesystem(), objects)


def test_faults_of_the_origin_end_in_right_bytes_or_a_clear_error(
    s3, bucket, tmp_path, worker_over
):
    name, objects = bucket(), files(10, 9 * MIB)
    put(s3, name, objects, tmp_path)
    with FaultProxy(s3.port) as proxy:
        worker = worker_over(s3_mount(proxy.endpoint, name))
        worker.start()
        for fault in (Status(503), Status(429), Cut(1000), Status(500)):
            proxy.fail(fault, times=2)
            assert_all(worker.filesystem(), objects)
            worker.call("evict", paths=[])
        proxy.fail(Truncate(500))  # looks like a whole object of another size
        with pytest.raises(CacheopError, match="its size is 500"):
            worker.filesystem().cat_file("data/d0/f0000")
        assert_all(worker.filesystem(), objects)
        worker.call("evict", paths=[])
        s3.http.put(name, "d0/f0000", b"another object now")
        filesystem = worker.filesystem()
        with pytest.raises(CacheopError) as caught:
            filesystem.cat_file("data/d0/f0000")
        assert caught.value.errno == errno.ESTALE
        assert "d0/f0000" in str(caught.value)
        del objects["d0/f0000"]
        assert_all(filesystem, objects)


def test_a_full_disk_is_read_through_and_said(s3, bucket, tmp_path, worker_over):
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small file system")
    name, objects = bucket(), files(100, 10 * MIB)
    put(s3, name, objects, tmp_path)
    image, small = tmp_path / "small.img", tmp_path / "node-0" / "cache"
    with image.open("wb") as file:
        file.truncate(8 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", image], check=True)
    small.mkdir(parents=True)
    subprocess.run(["mount", "-o", "loop", image, small], check=True)
    try:
        worker = worker_over(
            s3_mount(s3.endpoint, name),
            spec={"cache": {"tiers": [{"medium": "Disk", "quota": "1Gi"}]}},
        )
        worker.start()
        filler = small / "somebody-else"
        done = subprocess.run(  # the disk fills behind our back
            ["dd", "if=/dev/zero", f"of={filler}", "bs=64k"],
            check=False, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert "No space left" in done.stderr
        assert_all(worker.filesystem(), objects)
        assert worker.condition("Healthy")["status"] == "False"
        assert worker.metric("cacheop_read_bytes_total", source="through") > 0
        filler.unlink()
        time.sleep(2.5)
        worker.filesystem().cat_file("data/d1/f0001")
        assert worker.condition("Ready")["status"] == "True"
    finally:
        worker.stop()
        subprocess.run(["umount", "--lazy", small], check=True)  # mappings of this process are left


def test_tcp_needs_the_token_and_gives_bytes(s3, bucket, tmp_path, worker_over):
    name, objects = bucket(), files(5, 9 * MIB)
    put(s3, name, objects, tmp_path)
    token = tmp_path / "token"
    token.write_text("sesame\n")
    worker = worker_over(s3_mount(s3.endpoint, name), tcp="127.0.0.1:0", token_file=str(token))
    worker.start()
    address = worker.status()["addresses"]["tcp"]
    reads = client_token("sesame")
    for wrong in ("wrong", "sesame"):  # the control token is not for readers
        with pytest.raises(CredentialError, match="wrong token"):
            connect_tcp(address, wrong)
    from cacheop.client.filesystem import CacheopFileSystem

    filesystem = CacheopFileSystem(endpoint=address, token=reads, skip_instance_cache=True)
    assert_all(filesystem, objects)
    connection = connect_tcp(address, reads)  # a reader cannot evict
    with pytest.raises(CacheopError, match="not served"):
        connection.call("evict", {"paths": []}, time.monotonic() + 5)
    connection.close()


def test_the_client_socket_serves_client_operations_only(s3, bucket, tmp_path, worker_over):
    name = bucket()
    put(s3, name, {"a": b"1"}, tmp_path)
    worker = worker_over(s3_mount(s3.endpoint, name))
    worker.start()
    connection = connect_unix(worker.root / "client" / "client.sock")
    deadline = time.monotonic() + 10
    assert connection.call("hello", {}, deadline).meta["dataset"] == "data"
    for op in ("evict", "load", "suspend", "shutdown", "status", "no-such"):
        with pytest.raises(CacheopError, match="not served"):
            connection.call(op, {}, deadline)
    for meta in ({}, {"version": "x", "row": 0, "offset": 0, "length": 1}, {"row": "a"}):
        with pytest.raises(CacheopError):
            connection.call("read", meta, deadline)
    connection.close()
    assert (worker.root / "worker.sock").stat().st_mode & 0o777 == 0o600
    assert worker.status()["phase"] == "Ready"


@pytest.mark.parametrize(
    "junk",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(64),
        wire.HEADER.pack(b"CO", 9, 1, 1, 0, 0),
        b"CO\x01\x01" * 9,
    ],
)
def test_junk_on_a_socket_closes_that_connection_only(s3, bucket, tmp_path, worker_over, junk):
    name = bucket()
    put(s3, name, {"a": b"1"}, tmp_path)
    worker = worker_over(s3_mount(s3.endpoint, name))
    worker.start()
    for _ in range(5):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            directory = os.open(worker.root / "client", os.O_PATH)
            sock.connect(f"/proc/self/fd/{directory}/client.sock")  # its own path may be too long
            os.close(directory)
            sock.sendall(junk)
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(100) == b""
    assert worker.filesystem().cat_file("data/a") == b"1"


def test_metrics_and_health(s3, bucket, tmp_path, worker_over):
    name, objects = bucket(), {"a": b"x" * 1000, "b": b"y" * 2000}
    put(s3, name, objects, tmp_path)
    worker = worker_over(s3_mount(s3.endpoint, name))
    worker.start()
    assert_all(worker.filesystem(), objects)
    assert worker.metric("cacheop_origin_bytes_total", reason="demand") == 3000
    assert worker.metric("cacheop_origin_requests_total", op="get") == 2
    assert worker.metric("cacheop_origin_requests_total", op="list") == 1
    assert worker.metric("cacheop_cached_bytes") == 3000
    with urllib.request.urlopen(
        f"http://{worker.status()['addresses']['http']}/healthz", timeout=5
    ) as answer:
        assert json.loads(answer.read())["ready"]


def test_resident_processes_load_nothing_heavy(s3, bucket, tmp_path, worker_over):
    name = bucket()
    put(s3, name, {"a": b"1" * 100_000}, tmp_path)
    worker = worker_over(s3_mount(s3.endpoint, name))
    worker.start()
    worker.filesystem().cat_file("data/a")
    mapped = maps(worker.process.pid)
    for heavy in ("pyarrow", "numpy", "aiohttp", "pandas", "grpc"):
        assert heavy not in mapped
    code = (
        "import sys, cache_worker.worker, cache_worker.mounts.server;"
        "print([m for m in ('pyarrow','numpy','aiohttp','fsspec','kubernetes','yaml','redis')"
        " if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_worker_waits_for_the_one_before_it_to_end(s3, bucket, tmp_path, worker_over):
    """A killed supervisor's worker closes its store while the next supervisor starts another."""
    name = bucket()
    put(s3, name, {"a": b"1"}, tmp_path)
    worker = worker_over(s3_mount(s3.endpoint, name))
    worker.start()
    assert worker.filesystem().cat_file("data/a") == b"1"
    before = worker.process
    before.send_signal(signal.SIGSTOP)
    before.send_signal(signal.SIGTERM)
    try:
        worker.launch()
        time.sleep(3)
        assert worker.process.poll() is None
    finally:
        before.send_signal(signal.SIGCONT)
    assert before.wait(15) == 0
    worker.wait_ready()
    assert worker.filesystem().cat_file("data/a") == b"1"
    assert worker.metric("cacheop_origin_bytes_total") == 0
    assert "unclean stop" not in worker.log.read_text()


def test_a_second_worker_on_the_same_cache_is_refused(s3, bucket, tmp_path, worker_over):
    name = bucket()
    put(s3, name, {"a": b"1"}, tmp_path)
    worker = worker_over(s3_mount(s3.endpoint, name))
    worker.start()
    done = subprocess.run(
        [sys.executable, "-m", "cache_worker", "work", str(worker.config)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert "another worker" in done.stderr
    assert "Traceback" not in done.stderr
    assert worker.filesystem().cat_file("data/a") == b"1"
