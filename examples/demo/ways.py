"""The demo's three ways to the same dataset, each measured epoch by epoch.

`Demo` owns everything that runs: the S3 server, the slow link, `cacheop up`. It is a context
manager; leaving it, by whatever way, ends all of it and removes what it wrote except the dataset
and the server's data, which the next run uses again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import secrets
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from cacheop.api.names import ENV_RUN_DIR
from examples.demo import data
from examples.demo.interrupts import held_back
from examples.demo.link import SlowLink
from examples.demo.server import S3Server

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from examples.demo.train import Epoch, Source

EXAMPLES = Path(__file__).parents[1]
DATASET_ENDPOINT = "http://127.0.0.1:8333"  # as written in examples/dataset.yaml
BUCKET = "demo"
NAME = "demo"
COMMAND_SECONDS = 120
STOP_SECONDS = 30
SAMPLE_SEED = 7
READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Plan:
    """How large the demo is, and how slow its link."""

    recipe: data.Recipe = field(default_factory=data.Recipe)
    direct_samples: int = 2_000
    epochs: int = 3
    delay_seconds: float = 0.030
    bits_per_second: float = 1e9


QUICK = Plan(recipe=data.QUICK, direct_samples=200)


@dataclass(frozen=True, slots=True)
class Row:
    """One epoch as the table shows it. Origin bytes are the worker's own count.

    For the direct way, which has no worker, they are what passed the link; for the others `linked`
    is that second witness.
    """

    way: str
    number: int
    epoch: Epoch
    origin_bytes: int
    linked_bytes: int

    @property
    def hit_ratio(self) -> float:
        """The part of the bytes read that did not come from the origin in this epoch."""
        return max(0.0, 1 - self.origin_bytes / self.epoch.payload_bytes)


@dataclass(frozen=True, slots=True)
class Result:
    """All epochs of one way, and its sequential reads of the large shards in MB/s."""

    way: str
    rows: tuple[Row, ...]
    shard_megabytes_per_second: tuple[float, ...]
    origin_ratio: float | None
    """Origin bytes / dataset bytes over all of it, shards too; None for the direct sample."""


class Demo:
    """What runs while the demo runs. `say` gets one line before each longer step."""

    def __init__(self, plan: Plan, cache: Path, say: Callable[[str], None]) -> None:
        self.plan = plan
        self._say = say
        kind = f"{plan.recipe.images}-{plan.recipe.shards}"
        self._kept = cache / kind
        self._server = S3Server(self._kept / "s3")
        self._link: SlowLink | None = None
        self._scratch = Path(tempfile.gettempdir()) / f"cacheop-demo-{secrets.token_hex(6)}"
        self._mount = self._scratch / "mount"
        self._up = False
        self._lock: int | None = None
        self._run_dir_before = os.environ.get(ENV_RUN_DIR)
        self._environment = os.environ | {ENV_RUN_DIR: str(self._scratch / "run")}
        self._keys = data.image_keys(plan.recipe)
        self.dataset_bytes = 0

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def mountpoint(self) -> Path:
        """Where the Dataset is mounted, if it can be."""
        return self._mount

    @property
    def can_mount(self) -> bool:
        """Whether this machine lets us mount."""
        return os.geteuid() == 0 and os.access("/dev/fuse", os.R_OK | os.W_OK)

    def direct(self) -> Result:
        """One epoch over a seeded sample, straight from S3 by s3fs."""
        from examples.demo.train import Source

        sample = random.Random(SAMPLE_SEED).sample(self._keys, self.plan.direct_samples)
        assert self._link is not None
        options = {
            "key": self._server.access_key,
            "secret": self._server.secret_key,
            "endpoint_url": self._link.endpoint,
        }
        source = Source("s3", f"{BUCKET}/", options)
        rows = self._train("s3fs, sample", source, sample, epochs=1)
        shards = self._read_shards("s3://" + BUCKET, options)
        return Result("s3fs, sample", rows, (shards,), None)

    def fsspec(self) -> Result:
        """Epochs through cacheop://, from an empty cache."""
        from examples.demo.train import Source

        return self._cached("cacheop://", Source("cacheop", f"{NAME}/"), f"cacheop://{NAME}")

    def mount(self) -> Result:
        """Epochs through the mount, from a cache that is evicted first."""
        from examples.demo.train import Source

        self._say("evicting everything, then training through the mount")
        self.cacheop("evict", NAME, "--yes")
        return self._cached("mount", Source("file", f"{self._mount}/"), f"file://{self._mount}")

    def cacheop(self, *arguments: str) -> str:
        """Run the command line; its output. Raises RuntimeError with what it said."""
        command = [str(Path(sysconfig.get_path("scripts")) / "cacheop"), *arguments]
        process = subprocess.Popen(
            command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # ^C at the terminal is for us, and we tell it
        )
        try:
            out, said = process.communicate(timeout=COMMAND_SECONDS)
        except BaseException:
            process.terminate()  # an `up` then takes back what it began
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=STOP_SECONDS)
            process.kill()
            process.wait()
            raise
        if process.returncode:
            raise RuntimeError(f"`cacheop {' '.join(arguments)}` failed: {(said or out).strip()}")
        return out

    def status(self) -> dict[str, Any]:
        """The node's status, as `cacheop status -o json` tells it."""
        found: dict[str, Any] = json.loads(self.cacheop("status", NAME, "-o", "json"))
        node: dict[str, Any] = found["nodes"][0]
        return node

    def close(self) -> None:
        """End and remove everything; a second call does nothing, a second ^C changes nothing."""
        with held_back():
            self._close()

    def _close(self) -> None:
        if self._up:
            self._up = False
            # What `down` cannot end is told; the rest is still cleaned up.
            try:
                self.cacheop("down", NAME)
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                self._say(str(error))
        if self._link is not None:
            self._link.stop()
        self._server.stop()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        if self._run_dir_before is None:
            os.environ.pop(ENV_RUN_DIR, None)
        else:
            os.environ[ENV_RUN_DIR] = self._run_dir_before
        if not os.path.ismount(self._mount):
            shutil.rmtree(self._scratch, ignore_errors=True)

    def _start(self) -> None:
        self._scratch.mkdir(mode=0o755)
        # The loader's processes inherit it: cacheop:// must find this worker and no other.
        os.environ[ENV_RUN_DIR] = self._environment[ENV_RUN_DIR]
        self._say(f"making {self.plan.recipe.images:,} images and some shards, if not there yet")
        data.make(self._kept, self.plan.recipe)
        self.dataset_bytes = data.total_bytes(self._kept)
        self._say("starting the S3 server")
        self._claim()
        self._server.start()
        self._upload()
        self._link = SlowLink(
            self._server.port,
            delay_seconds=self.plan.delay_seconds,
            bits_per_second=self.plan.bits_per_second,
        )
        self._link.start()
        self._say("cacheop up")
        began = time.monotonic()
        arguments = ["up", "-f", str(self._dataset_file()), "--cache", str(self._scratch / "cache")]
        self._up = True
        if self.can_mount:
            self._mount.mkdir()
            arguments += ["--mount", str(self._mount)]
        self.cacheop(*arguments)
        self._say(f"ready after {time.monotonic() - began:.1f} s; nothing is cached yet")

    def _claim(self) -> None:
        """One demo at a time has the server's data; the kernel lets go when we end."""
        self._lock = os.open(self._kept / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RuntimeError(
                f"another demo runs with {self._kept}: wait for it, or name another --cache"
            ) from error

    def _upload(self) -> None:
        done = self._kept / "uploaded.json"
        recipe = json.dumps(asdict(self.plan.recipe))
        if done.exists() and done.read_text() == recipe:
            return
        self._say(f"uploading {self.dataset_bytes / 1e6:.0f} MB (only the first time)")
        self._server.upload(BUCKET, self._kept / "data")
        done.write_text(recipe)

    def _dataset_file(self) -> Path:
        """examples/dataset.yaml and its secret, with the link's endpoint instead of port 8333."""
        assert self._link is not None
        documents = [
            (EXAMPLES / name).read_text().strip() for name in ("dataset.yaml", "secret.yaml")
        ]
        text = "\n---\n".join(document.removeprefix("---") for document in documents)
        if DATASET_ENDPOINT not in text:
            raise RuntimeError(f"{EXAMPLES / 'dataset.yaml'} does not name {DATASET_ENDPOINT}")
        path = self._scratch / "dataset.yaml"
        path.write_text(text.replace(DATASET_ENDPOINT, self._link.endpoint))
        return path

    def _cached(self, way: str, source: Source, url: str) -> Result:
        before = int(self.status()["origin_bytes"])
        rows = self._train(way, source, self._keys, epochs=self.plan.epochs)
        reads = (self._read_shards(url, {}), self._read_shards(url, {}))
        fetched = int(self.status()["origin_bytes"]) - before
        return Result(way, rows, reads, fetched / self.dataset_bytes)

    def _train(
        self, way: str, source: Source, keys: Sequence[str], *, epochs: int
    ) -> tuple[Row, ...]:
        from examples.demo.train import Trainer

        assert self._link is not None
        rows = []
        with contextlib.closing(Trainer(source, keys)) as trainer:
            for number in range(1, epochs + 1):
                self._say(f"{way}: epoch {number} of {epochs}, {len(keys):,} images")
                linked = self._link.traffic().bytes
                counted = self._origin_bytes(source, linked)
                epoch = trainer.epoch()
                now = self._link.traffic().bytes
                fetched = self._origin_bytes(source, now) - counted
                rows.append(Row(way, number, epoch, fetched, now - linked))
        return tuple(rows)

    def _origin_bytes(self, source: Source, linked_bytes: int) -> int:
        return linked_bytes if source.protocol == "s3" else int(self.status()["origin_bytes"])

    def _read_shards(self, url: str, options: dict[str, str]) -> float:
        """MB/s of one sequential read of all shards, in a process of its own."""
        keys = data.shard_keys(self.plan.recipe)
        done = subprocess.run(
            [sys.executable, "-m", "examples.demo.ways", url, json.dumps(options), *keys],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            cwd=EXAMPLES.parent,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"reading the shards at {url} failed: {done.stderr.strip()}")
        return float(done.stdout)


def _read_sequentially(url: str, options: dict[str, str], keys: Sequence[str]) -> float:
    """MB/s of reading `keys` below `url` one after the other."""
    import fsspec

    protocol, _, root = url.partition("://")
    files = fsspec.filesystem(protocol, **options)
    total = 0
    began = time.perf_counter()
    for key in keys:
        with files.open(f"{root}/{key}", "rb") as file:
            while block := file.read(READ_BYTES):
                total += len(block)
    return total / 1e6 / (time.perf_counter() - began)


if __name__ == "__main__":
    speed = _read_sequentially(sys.argv[1], json.loads(sys.argv[2]), sys.argv[3:])
    sys.stdout.write(f"{speed}\n")
