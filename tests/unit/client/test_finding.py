"""Where a Dataset is looked for, and what happens when the worker goes."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from cacheop import local
from cacheop.api.errors import OriginChanged, UserError, WorkerUnavailable
from cacheop.client import locate
from cacheop.client.endpoints import endpoints
from cacheop.client.filesystem import CacheopFileSystem
from cacheop.client.link import Patience
from cacheop.client.url import Target
from tests.fakes.worker import MTIME_NS
from tests.unit.client.conftest import FILES

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.worker import FakeWorker


def new(**options: object) -> CacheopFileSystem:
    return CacheopFileSystem(skip_instance_cache=True, **options)


def record(tmp_path: Path, *roots: Path, origin: Path | None = None) -> None:
    """As `cacheop up` would have left it; its processes are gone."""
    run = tmp_path / "run"
    config = run / "default.demo" / "node-0.json"
    config.parent.mkdir(parents=True)
    mounts = [{"mountPoint": f"file://{origin}"}]
    document = {
        "apiVersion": "cacheop.io/v1alpha1",
        "kind": "Dataset",
        "metadata": {"name": "demo"},
        "spec": {"mounts": mounts},
    }
    config.write_text(json.dumps({"dataset": document, "secrets": str(config.parent)}))
    nodes = tuple(local.NodeRecord(f"node-{i}", r, 0, config) for i, r in enumerate(roots))
    local.write(local.RunRecord("default", "demo", "", nodes, "", 0.0, run))


def write(directory: Path) -> None:
    for path, data in FILES.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(data)


def test_a_mount_is_just_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "mnt")
    monkeypatch.setenv("CACHEOP_MOUNT", str(tmp_path / "mnt"))
    fs = new()
    for path, data in FILES.items():
        assert fs.cat_file(f"cacheop://demo/{path}") == data
        with fs.open(f"demo/{path}") as file:
            assert file.fileno()
            assert file.read() == data
    assert fs.find("demo") == sorted(f"demo/{path}" for path in FILES)
    assert fs.info("demo/empty")["name"] == "demo/empty"
    assert fs.ls("demo/train", detail=False) == ["demo/train/a", "demo/train/b"]
    assert fs.cat(["demo/empty", "demo/train-extra/4.jpg"])["demo/train-extra/4.jpg"] == b"four"
    assert not fs.exists("demo/nowhere")


def test_by_the_record_of_up(worker: FakeWorker, tmp_path: Path) -> None:
    record(tmp_path, tmp_path / "gone", worker.root)
    fs = new()
    assert fs.cat_file("demo/train-extra/4.jpg") == b"four"
    fs.invalidate_cache()


def test_nowhere_tells_each_step(tmp_path: Path) -> None:
    with pytest.raises(WorkerUnavailable) as caught:
        new().cat_file("demo/x")
    for step in ("CACHEOP_MOUNT is not set", "no record in", "CACHEOP_ENDPOINT is not set"):
        assert step in str(caught.value)
    assert "cacheop up" in caught.value.hint
    record(tmp_path, tmp_path / "gone")
    with pytest.raises(WorkerUnavailable, match="no worker answers at"):
        new().cat_file("demo/x")
    with pytest.raises(WorkerUnavailable):  # not an answer, so not False
        new().exists("demo/x")


def test_fallback_reads_the_origin_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "origin")
    record(tmp_path, tmp_path / "gone", origin=tmp_path / "origin")
    locate._warned.clear()
    with caplog.at_level(logging.WARNING, logger="cacheop"):
        for _ in range(2):
            fs = new(fallback=True)
            assert fs.cat_file("demo/big.bin", 3, 9) == FILES["big.bin"][3:9]
            assert fs.find("demo") == sorted(f"demo/{path}" for path in FILES)
    assert len(caplog.records) == 1
    with pytest.raises(WorkerUnavailable, match="the origin has no version"):
        new(fallback=True).cat_file("demo@ab/big.bin")


def test_fallback_to_a_named_origin(tmp_path: Path) -> None:
    write(tmp_path / "origin")
    fs = new(
        fallback=True, origin=f"file://{tmp_path}/origin", origin_options={"auto_mkdir": False}
    )
    assert fs.cat_file("demo/train-extra/4.jpg") == b"four"
    with pytest.raises(UserError, match="cannot open the origin"):
        new(fallback=True, origin="nosuch://x/").cat_file("demo/x")


def test_a_dead_worker_does_not_stop_cached_reads(
    worker: FakeWorker,
) -> None:
    fs = new(cache=str(worker.root), patience=Patience(reconnect_seconds=0.3, away_seconds=0.3))
    worker.fill("train/a/1.jpg", 0)
    assert fs.exists("demo")
    worker.close()
    assert fs.cat_file("demo/train/a/1.jpg") == FILES["train/a/1.jpg"]
    assert len(fs.find("demo")) == len(FILES)
    assert isinstance(fs.cat_ranges(["demo/train/a/2.jpg"], 0, 1)[0], WorkerUnavailable)
    started = time.monotonic()
    with pytest.raises(WorkerUnavailable, match="no worker answers"):
        fs.cat_file("demo/train/a/2.jpg")
    assert time.monotonic() - started < 3
    worker.start()
    assert fs.cat_file("demo/train/a/2.jpg") == FILES["train/a/2.jpg"]


def test_a_worker_that_dies_later_is_replaced_by_its_origin(
    worker: FakeWorker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "origin")
    for path in FILES:
        os.utime(tmp_path / "origin" / path, ns=(MTIME_NS, MTIME_NS))
    locate._warned.clear()
    fs = new(cache=str(worker.root), fallback=True, origin=f"file://{tmp_path}/origin")
    worker.fill("train/a/1.jpg", 0)
    assert fs.cat_file("demo/train/a/1.jpg") == FILES["train/a/1.jpg"]
    worker.close()
    started = time.monotonic()
    with caplog.at_level(logging.WARNING, logger="cacheop"):
        found = fs.cat([f"demo/{path}" for path in FILES])
        assert found == {f"demo/{path}": data for path, data in FILES.items()}
        with fs.open("demo/big.bin") as file:
            file.seek(5)
            assert file.read() == FILES["big.bin"][5:]
        with fs.open("demo/train/b/3.jpg") as file:
            assert file.read() == FILES["train/b/3.jpg"]
    assert time.monotonic() - started < 8
    assert len(caplog.records) == 1
    (tmp_path / "origin" / "train/a/2.jpg").write_bytes(b"TWO" * 2000)
    with pytest.raises(OriginChanged, match="modified"):
        fs.cat_file("demo/train/a/2.jpg")
    (tmp_path / "origin" / "train/a/2.jpg").unlink()
    with pytest.raises(OriginChanged, match="gone"):
        fs.cat_file("demo/train/a/2.jpg")
    worker.start()
    assert fs.cat_file("demo/train/a/2.jpg") == FILES["train/a/2.jpg"]
    fs.invalidate_cache()


def test_a_restarted_worker_learns_of_the_version_in_use(
    worker: FakeWorker, fs: CacheopFileSystem
) -> None:
    old = worker.version
    assert fs.cat_file("demo/train/a/1.jpg")
    worker.add_version({**FILES, "train/a/1.jpg": b"new"})
    worker.close()
    worker.start()
    assert fs.cat_file("demo/train/a/2.jpg") == FILES["train/a/2.jpg"]
    assert worker.bound_versions()[-1] == old
    assert fs.cat(["demo/train/b/3.jpg", "demo/empty"])["demo/empty"] == b""


def test_a_worker_that_hangs(worker: FakeWorker) -> None:
    fs = new(cache=str(worker.root), patience=Patience(read_seconds=0.2))
    worker.delay_seconds = 0.6
    with pytest.raises(WorkerUnavailable, match=r"did not answer 'read' within 0\.2 s"):
        fs.cat_file("demo/train/a/1.jpg")
    worker.delay_seconds = 0.0
    assert fs.cat_file("demo/train/a/1.jpg") == FILES["train/a/1.jpg"]
    fs.invalidate_cache()


def test_what_was_read_without_asking_is_told(worker: FakeWorker) -> None:
    fs = new(cache=str(worker.root), patience=Patience(touched_seconds=0.2))
    worker.fill_all()
    for _ in range(3):
        fs.cat_file("demo/train/a/1.jpg")
    assert worker.count("touched") == 0
    time.sleep(0.25)
    fs.cat_file("demo/empty")
    fs.cat_file("demo/train/a/2.jpg")
    deadline = time.monotonic() + 5
    while not worker.count("touched") and time.monotonic() < deadline:
        time.sleep(0.01)
    told = next(request for request in worker.requests if request["op"] == "touched")
    assert told["version"] == worker.version
    assert 3 in told["rows"].values()
    worker.evict("train/a/1.jpg")  # the unread answers are not taken for this one's
    assert fs.cat_file("demo/train/a/1.jpg") == FILES["train/a/1.jpg"]


def test_a_worker_that_still_lists_is_waited_for(worker: FakeWorker) -> None:
    worker.indexing = True
    with pytest.raises(WorkerUnavailable):  # not False: nobody knows yet
        new(cache=str(worker.root), patience=Patience(attach_seconds=0.3)).exists("demo/empty")
    fs = new(cache=str(worker.root), patience=Patience(attach_seconds=10))
    timer = threading.Timer(0.3, setattr, (worker, "indexing", False))
    timer.start()
    assert fs.exists("demo/empty")
    timer.join()


def test_in_a_cluster_the_services_are_tried_in_order(
    worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert endpoints(Target("vision", "imagenet", ""), "", in_cluster=True) == (
        "cacheop-imagenet.vision.svc:7071",
        "cacheop-imagenet-workers.vision.svc:7071",
    )
    given = "cacheop-imagenet.vision:7071, 10.0.0.1:7071"
    assert endpoints(Target("vision", "imagenet", ""), given, in_cluster=False) == (
        "cacheop-imagenet.vision:7071",
        "cacheop-imagenet-workers.vision:7071",
        "10.0.0.1:7071",
    )
    monkeypatch.setenv("CACHEOP_TOKEN", worker.token)
    monkeypatch.setenv("CACHEOP_ENDPOINT", f"127.0.0.1:1,{worker.endpoint}")
    assert new().cat_file("demo/train-extra/4.jpg") == b"four"
    monkeypatch.setenv("CACHEOP_ENDPOINT", "127.0.0.1:1,127.0.0.1:2")
    with pytest.raises(WorkerUnavailable, match=r"127\.0\.0\.1:1: .*; 127\.0\.0\.1:2: ") as caught:
        new(patience=Patience(attach_seconds=0.1)).cat_file("demo/x")
    assert "CACHEOP_MOUNT is not set" in str(caught.value)
    monkeypatch.delenv("CACHEOP_ENDPOINT")
    monkeypatch.delenv("CACHEOP_TOKEN")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("CACHEOP_NAMESPACE", "vision")
    with pytest.raises(WorkerUnavailable, match="CACHEOP_TOKEN is not set") as caught:
        new().cat_file("demo/x")
    assert "vision/demo" in str(caught.value)
