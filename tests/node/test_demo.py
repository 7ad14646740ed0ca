"""The demo itself, small, and the parts that other tests stand on: the server and the link."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from examples.demo import data
from examples.demo.s3http import S3Http
from examples.demo.server import S3Server

if TYPE_CHECKING:
    from collections.abc import Callable

    from examples.demo.link import SlowLink

pytestmark = pytest.mark.node
ROOT = Path(__file__).parents[2]


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def through(link: SlowLink, s3: S3Server) -> S3Http:
    return S3Http("127.0.0.1", link.port, s3.access_key, s3.secret_key)


def test_the_server_keeps_its_data_over_a_restart(tmp_path: Path):
    content = os.urandom(3 << 20)
    server = S3Server(tmp_path / "server")
    with server:
        server.http.make_bucket("kept")
        server.http.put("kept", "a b/ü.bin", content)
    with server:
        assert digest(server.http.get("kept", "a b/ü.bin")) == digest(content)


def test_the_server_refuses_a_wrong_secret(s3: S3Server, bucket: Callable[[], str]):
    name = bucket()
    s3.http.put(name, "key", b"bytes")
    stranger = S3Http("127.0.0.1", s3.port, s3.access_key, "wrong")
    assert stranger.request("GET", f"{name}/key").status == 403


def test_upload_puts_every_file(s3: S3Server, bucket: Callable[[], str], tmp_path: Path):
    files = {f"a/{i}/{i}.bin": os.urandom(i * 1000) for i in range(40)}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(content)
    name = bucket()
    s3.upload(name, tmp_path, prefix="in/")
    for key, content in files.items():
        assert digest(s3.http.get(name, f"in/{key}")) == digest(content)


def test_the_link_passes_bytes_unchanged_and_counts_them(
    s3: S3Server, bucket: Callable[[], str], slow_link: SlowLink
):
    name, content = bucket(), os.urandom(5_000_001)
    far = through(slow_link, s3)
    far.put(name, "key", content)
    before = slow_link.traffic()
    assert digest(far.get(name, "key")) == digest(content)
    after = slow_link.traffic()
    assert after.requests - before.requests == 1
    assert after.bytes - before.bytes == len(content)


def test_the_link_delays_each_request(s3: S3Server, bucket: Callable[[], str], slow_link: SlowLink):
    name = bucket()
    far = through(slow_link, s3)
    far.put(name, "key", b"x")
    slow_link.set(delay_seconds=0.2, bits_per_second=0)
    began = time.monotonic()
    for _ in range(3):
        far.get(name, "key")
    assert time.monotonic() - began >= 0.6


def test_all_connections_share_the_bandwidth(
    s3: S3Server, bucket: Callable[[], str], slow_link: SlowLink
):
    name, size_bytes = bucket(), 2 << 20
    far = through(slow_link, s3)
    far.put(name, "key", os.urandom(size_bytes))
    slow_link.set(delay_seconds=0, bits_per_second=80e6)
    began = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda _: len(far.get(name, "key")), range(4)))
    took = time.monotonic() - began
    assert got == [size_bytes] * 4
    assert took >= 0.9 * 4 * size_bytes * 8 / 80e6


def test_a_client_that_goes_away_does_no_harm(
    s3: S3Server, bucket: Callable[[], str], slow_link: SlowLink
):
    import socket

    name = bucket()
    far = through(slow_link, s3)
    far.put(name, "key", b"still here")
    for start in (
        f"PUT /{name}/never HTTP/1.1\r\nhost: x\r\ncontent-length: 99999\r\n\r\nhalf",
        "GET /broken",
    ):
        with socket.create_connection(("127.0.0.1", slow_link.port), timeout=5) as gone:
            gone.sendall(start.encode())
    assert far.get(name, "key") == b"still here"


def test_the_dataset_is_the_same_every_time(tmp_path: Path):
    recipe = data.Recipe(images=40, shards=1, shard_bytes=2 << 20)
    sums = []
    for place in (tmp_path / "a", tmp_path / "b"):
        data.make(place, recipe)
        files = sorted(path for path in (place / "data").rglob("*") if path.is_file())
        sums.append([(p.relative_to(place), digest(p.read_bytes())) for p in files])
    assert sums[0] == sums[1]
    assert len({content for _, content in sums[0]}) == len(sums[0]) == 41
    assert {str(p.relative_to("data")) for p, _ in sums[0]} == {
        *data.image_keys(recipe),
        *data.shard_keys(recipe),
    }


def start_demo(tmp_path: Path) -> subprocess.Popen[str]:
    """The quick demo; all that it writes is below `tmp_path`, so what it leaves can be found."""
    return subprocess.Popen(
        [sys.executable, "-m", "examples.demo.main", "--quick", "--cache", str(tmp_path / "kept")],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def assert_nothing_left(tmp_path: Path) -> None:
    assert not list(tmp_path.glob("cacheop-demo-*"))
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    deadline = time.monotonic() + 10  # the loader's processes end a moment after their parent
    while processes_naming(str(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not processes_naming(str(tmp_path))


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_demo_shows_what_it_promises(tmp_path: Path):
    """Exit code 0: 5 x direct, origin bytes 1.00 x, and nothing of it left running."""
    demo = start_demo(tmp_path)
    try:
        out, said = demo.communicate(timeout=380)
    finally:
        demo.terminate()
    assert demo.returncode == 0, out + said
    assert "1.00 x the dataset from the origin" in out
    assert_nothing_left(tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_an_interrupted_demo_leaves_nothing(tmp_path: Path):
    demo = start_demo(tmp_path)
    try:
        assert demo.stderr is not None
        for line in demo.stderr:
            if "cacheop://: epoch 1" in line:
                break
        time.sleep(0.5)
        demo.send_signal(signal.SIGINT)
        _, said = demo.communicate(timeout=60)
    finally:
        demo.terminate()
    assert demo.returncode == 130, said
    assert "Traceback" not in said, said
    assert_nothing_left(tmp_path)


def processes_naming(text: str) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it ended while we looked
        if text in command:
            found.append(command)
    return found
