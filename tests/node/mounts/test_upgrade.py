"""A rolling upgrade: code of another version takes over under load, and nobody notices."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fakes.running_node import RunningNode, wait_for
from tests.node.mounts import storm

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.node,
    pytest.mark.skipif(
        os.geteuid() != 0 or not Path("/dev/fuse").exists(), reason="needs root and /dev/fuse"
    ),
]

REPOSITORY = Path(__file__).parents[3]
OLD, NEW = "9.0.0", "9.1.0"
SECONDS = 9.0
MARK = """
import os as _os
_os.write(2, f"code of {VERSION!r} runs {_os.sys.argv[1:2]}\\n".encode())
"""


def copy_code(directory: Path, version: str) -> Path:
    """The two packages as another release has them: its version, and every process says so."""
    for package in ("cacheop", "cache_worker"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / package, directory / package, ignore=ignored)
    where = directory / "cacheop/__init__.py"
    lines = where.read_text().splitlines()
    where.write_text(
        "\n".join(
            f'__version__ = "{version}"' if line.startswith("__version__") else line
            for line in lines
        )
    )
    entry = directory / "cache_worker/__main__.py"
    start, end = entry.read_text().split('if __name__ == "__main__":')
    mark = f"VERSION = {version!r}\n" + MARK
    entry.write_text(f'{start}{mark}\n\nif __name__ == "__main__":{end}')
    return directory


class Kubelet:
    """Starts supervisor and holder of one release, as the launcher or Kubernetes does."""

    def __init__(self, node: RunningNode) -> None:
        self.node = node
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, verb: str, code: Path) -> None:
        with self.node.log.open("ab") as log:
            self.running[verb] = subprocess.Popen(
                [sys.executable, "-m", "cache_worker", verb, str(self.node.config)],
                cwd=code,
                env={**os.environ, "PYTHONPATH": str(code)},
                stdout=log,
                stderr=log,
            )
        self.node.roots = [process.pid for process in self.running.values()]

    def replace(self, verb: str, code: Path) -> int:
        """SIGTERM, then the other release; the exit code of the old one."""
        old = self.running[verb]
        old.terminate()
        ended = old.wait(timeout=20)
        self.start(verb, code)
        return ended

    def close(self) -> None:
        if self.node.targets and self.running:
            try:
                self.node.ask_holder({"op": "unpublish", "all": True})
            except OSError as error:
                print(f"the holder is away: {error}")
        for verb in ("supervise", "hold"):
            if verb in self.running:
                self.running[verb].send_signal(signal.SIGTERM)
                try:
                    self.running[verb].wait(timeout=15)
                except subprocess.TimeoutExpired:
                    self.running[verb].kill()
                    self.running[verb].wait()


@pytest.fixture
def code(tmp_path: Path) -> tuple[Path, Path]:
    return copy_code(tmp_path / "old", OLD), copy_code(tmp_path / "new", NEW)


@pytest.fixture(params=storm.MODES)
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunningNode]:
    catalog = storm.write_files(tmp_path / "origin", random.Random(8))
    (tmp_path / "catalog.json").write_text(json.dumps(catalog))
    (tmp_path / "mnt").mkdir()
    mounts = [{"target": str(tmp_path / "mnt"), "mode": request.param, "version": ""}]
    node = RunningNode(tmp_path / "node", f"file://{tmp_path}/origin", mounts)
    yield node
    from tests.fakes.running_node import unmount

    unmount(tmp_path / "mnt")


def test_another_release_takes_over_under_load(node, code, tmp_path):
    old, new = code
    kubelet, readers = Kubelet(node), []
    try:
        kubelet.start("hold", old)
        kubelet.start("supervise", old)
        wait_for(node.is_whole, 30)
        made = node.report()[0]
        plan = {
            "mount": made["target"],
            "version": made["version"],
            "catalog": str(tmp_path / "catalog.json"),
            "seed": 1,
            "seconds": SECONDS,
        }
        stop = time.monotonic() + SECONDS
        readers = storm.start_readers(plan)
        time.sleep(1)
        assert f"code of {NEW!r}" not in node.log.read_text()
        assert kubelet.replace("supervise", new) == 0
        wait_for(node.is_whole, 20)
        kubelet.replace("hold", new)
        wait_for(node.is_whole, 20)
        found, lost = storm.collect(readers, stop + storm.LATE_SECONDS)
        same = node.report()[0]
    finally:
        for reader in readers:
            reader.kill()
            reader.wait()
        kubelet.close()
    log = node.log.read_text()
    for verb in ("hold", "supervise", "work", "mount"):
        assert f"code of {NEW!r} runs ['{verb}']" in log, log[-3000:]
    assert lost == []
    assert [text for one in found for text in one["wrong"] + one["errors"]] == [], log[-3000:]
    assert all(one["operations"] > 3 for one in found), found
    assert max(one["slowest"] for one in found) < storm.HANG_SECONDS
    assert (same["id"], same["mode"]) == (made["id"], made["mode"])
    assert "Traceback" not in log, log[log.index("Traceback") :][:3000]
