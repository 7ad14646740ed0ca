"""Where the benchmarks run: a real S3 server with data in it, and Datasets brought up over it."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from examples.demo.server import S3Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SMALL_BYTES = 110 * 1024
CLI_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured. Quick is for daily use, not for figures to quote."""

    small_files: int
    big_bytes: int
    memory_bytes: int
    rounds: int
    keys: int
    """How many the stand-in for S3 lists."""
    real_keys: int
    """How many objects the real server lists."""
    settle_seconds: int
    """How long after a fill the worker's memory is looked at."""

    @classmethod
    def of(cls, *, quick: bool) -> Sizes:
        """The sizes of a full or a quick run."""
        if quick:
            return cls(300, 128 << 20, 128 << 20, 3, 50_000, 1_000, 2)
        return cls(2000, 512 << 20, 2 << 30, 5, 1_000_000, 20_000, 10)


class Setting:
    """A folder of our own, an S3 server, its data, and the same data as plain files."""

    def __init__(self, directory: Path, sizes: Sizes, s3: S3Server) -> None:
        self.directory, self.sizes, self.s3 = directory, sizes, s3
        self.plain = directory / "plain"
        self.environment = {**os.environ, "CACHEOP_RUN_DIR": str(directory / "run")}
        os.environ["CACHEOP_RUN_DIR"] = str(directory / "run")

    @property
    def small_keys(self) -> list[str]:
        """110 KB files in folders of a hundred."""
        return [f"small/{i // 100:03d}/{i:05d}.jpg" for i in range(self.sizes.small_files)]

    def make_data(self) -> None:
        """The same bytes as plain files and as objects in the bucket `bench`."""
        source = random.Random(1)
        for key in self.small_keys:
            path = self.plain / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(source.randbytes(SMALL_BYTES))
        (self.plain / "big").mkdir()
        with (self.plain / "big" / "one.bin").open("wb") as file:
            for _ in range(self.sizes.big_bytes >> 20):
                file.write(source.randbytes(1 << 20))
        self.s3.upload("bench", self.plain)

    def dataset(
        self, name: str, bucket: str, prefix: str = "", options: dict[str, Any] | None = None
    ) -> Path:
        """A Dataset file for a bucket of our server, or of the one that `options` say."""
        path = self.directory / f"{name}.yaml"
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "cacheop.io/v1alpha1",
                    "kind": "Dataset",
                    "metadata": {"name": name},
                    "spec": {
                        "mounts": [
                            {
                                "mountPoint": f"s3://{bucket}/{prefix}",
                                "options": options
                                or {
                                    "endpoint_url": self.s3.endpoint,
                                    "key": self.s3.access_key,
                                    "secret": self.s3.secret_key,
                                },
                            }
                        ]
                    },
                }
            )
        )
        return path

    def cacheop(self, *arguments: str) -> str:
        """Run the command line; its standard output."""
        done = subprocess.run(
            [sys.executable, "-c", "from cacheop.cli.main import run; run()", *arguments],
            check=False,
            capture_output=True,
            text=True,
            timeout=CLI_SECONDS,
            env=self.environment,
        )
        if done.returncode:
            raise RuntimeError(f"cacheop {' '.join(arguments)}: {done.stderr}")
        return done.stdout

    def status(self, name: str) -> dict[str, Any]:
        """`cacheop status` of a Dataset."""
        found: dict[str, Any] = json.loads(self.cacheop("status", name, "-o", "json"))
        return found

    @contextmanager
    def up(self, name: str, file: Path, *arguments: str) -> Iterator[dict[str, Any]]:
        """A Dataset from an empty cache, down again at the end; its status."""
        cache = self.directory / "cache"
        self.cacheop("up", "-f", str(file), "--cache", str(cache), *arguments)
        try:
            yield self.status(name)
        finally:
            self.cacheop("down", name)
            shutil.rmtree(cache, ignore_errors=True)


@contextmanager
def setting(directory: Path, *, quick: bool) -> Iterator[Setting]:
    """Everything set up, and taken down at the end. `directory` must be on a real disk."""
    sizes = Sizes.of(quick=quick)
    with S3Server(directory / "s3") as s3:
        found = Setting(directory, sizes, s3)
        found.make_data()
        yield found


def child(code: str, *arguments: str, environment: dict[str, str] | None = None) -> Any:
    """Run Python in a process of its own (a reader's clean start); the JSON it prints last."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=CLI_SECONDS,
        env=environment,
    )
    return json.loads(done.stdout.splitlines()[-1])


def in_turn(rounds: int, *measures: Any) -> list[list[float]]:
    """Run each measure once a round, so that a noisy minute meets them all; results by measure."""
    results: list[list[float]] = [[] for _ in measures]
    for _ in range(rounds):
        for found, measure in zip(results, measures, strict=True):
            found.append(measure())
    return results
