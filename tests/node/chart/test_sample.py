"""`helm test`'s server and check, with a real worker between them in place of a cluster."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request

import pytest

from tests.fakes.redis_server import free_port
from tests.fakes.running_worker import RunningWorker
from tests.node.chart.conftest import CHART

pytestmark = pytest.mark.node
SAMPLE = CHART / "files/test/sample.py"


@pytest.fixture
def served(tmp_path):
    port = free_port()
    url = f"http://127.0.0.1:{port}/"
    with (tmp_path / "server.log").open("wb") as log:
        server = subprocess.Popen([sys.executable, str(SAMPLE), "serve", str(port)], stderr=log)
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                urllib.request.urlopen(url, timeout=5).close()
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield url
    finally:
        server.kill()
        server.wait(10)


def test_what_is_read_through_the_cache_passes_the_check(served, tmp_path):
    worker = RunningWorker(tmp_path / "worker", [{"mountPoint": served}])
    worker.start()
    try:
        files = worker.filesystem()
        got = tmp_path / "got"
        for path in files.find("data"):
            target = got / path.partition("data/")[2]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(files.cat_file(path))
        done = subprocess.run(
            [sys.executable, str(SAMPLE), "check", str(got)],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "4 files" in done.stdout
    finally:
        worker.kill()
