"""JuiceFS over the same S3 server: its metadata in SQLite, with default or its fastest flags."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.mount.figures import JUICEFS, JUICEFS_FASTEST
from benchmarks.mount.machine import processes_with
from benchmarks.mount.systems import System

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.mount.fleet import Item
    from benchmarks.mount.place import Place

COMMAND_SECONDS = 120
COPY_SECONDS = 600
LONG = "24h"
# Read-only data that nobody changes: metadata may be kept for as long as one likes.
FASTEST = (
    "--read-only", "--attr-cache", LONG, "--entry-cache", LONG, "--dir-entry-cache", LONG,
    "--readdir-cache", "--open-cache", LONG, "--open-cache-limit", "0", "--buffer-size", "1024",
    "--prefetch", "4", "--max-readahead", "64", "--max-fuse-io", "1M", "--verify-cache-checksum",
    "none", "--cache-eviction", "none", "--no-bgjob", "--backup-meta", "0",
)  # fmt: skip
FLAGS = {JUICEFS: (), JUICEFS_FASTEST: FASTEST}

_COPY = """
import json, shutil, sys
from concurrent.futures import ThreadPoolExecutor
source, target, items = json.load(sys.stdin)
with ThreadPoolExecutor(16) as pool:
    for _ in pool.map(lambda i: shutil.copyfile(f"{source}/{i[0]}", f"{target}/{i[0]}"), items):
        pass
"""


class JuiceFS:
    """A volume in a bucket of its own."""

    def __init__(self, place: Place, bucket: str) -> None:
        self._s3, self._bucket = place.setting.s3, bucket
        self._directory = place.directory / bucket
        self._cache = self._directory / "cache"
        self._meta = f"sqlite3://{self._directory / 'meta.db'}"
        self._binary = Path(sysconfig.get_path("scripts")) / "juicefs"
        self.target = place.directory / f"mnt-{bucket}"

    def format(self) -> None:
        """Make the volume. Raises RuntimeError with what juicefs said."""
        self._cache.mkdir(parents=True)
        self.target.mkdir(exist_ok=True)
        self._s3.http.make_bucket(self._bucket)
        bucket = f"{self._s3.endpoint}/{self._bucket}"
        self._run(
            "format", "--storage", "s3", "--bucket", bucket, "--access-key", self._s3.access_key,
            "--secret-key", self._s3.secret_key, "--trash-days", "0", self._meta, self._bucket,
        )  # fmt: skip

    def fill(self, plain: Path, items: Sequence[Item]) -> None:
        """Copy the files in, once."""
        with self.mounted(JUICEFS):
            for folder in {os.path.dirname(path) for path, _, _ in items}:
                (self.target / folder).mkdir(parents=True, exist_ok=True)
            subprocess.run(
                [sys.executable, "-c", _COPY],
                input=json.dumps([str(plain), str(self.target), items]),
                check=True,
                text=True,
                timeout=COPY_SECONDS,
            )

    @contextmanager
    def mounted(self, flags: str) -> Iterator[System]:
        """The volume mounted with one set of flags, over the one cache directory."""
        self._run(
            "mount", self._meta, str(self.target), "-d", "--no-syslog", "--no-usage-report",
            "--log", str(self._directory / "log"), "--metrics", "127.0.0.1:0",
            "--cache-dir", str(self._cache), *FLAGS[flags],
        )  # fmt: skip
        try:
            yield System(flags, self.target, self._processes, " ".join(FLAGS[flags]))
        finally:
            try:
                self._run("umount", str(self.target))
            except RuntimeError:
                self._run("umount", "--force", str(self.target))

    def cached_files(self) -> list[str]:
        """Its own copies on disk."""
        return [str(path) for path in self._cache.rglob("*") if path.is_file()]

    def clear_cache(self) -> None:
        """Everything comes from S3 again; not mounted."""
        shutil.rmtree(self._cache)
        self._cache.mkdir()

    def remove(self) -> None:
        """Metadata, cache and objects."""
        shutil.rmtree(self._directory, ignore_errors=True)
        self._s3.http.request("DELETE", f"/{self._bucket}")

    def _processes(self) -> dict[str, list[int]]:
        return {"juicefs": processes_with(self._meta)}

    def _run(self, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._binary), *arguments],
            check=False,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode:
            raise RuntimeError(f"juicefs {arguments[0]}: {done.stderr[-2000:]}")


@contextmanager
def volume(place: Place, bucket: str, items: Sequence[Item]) -> Iterator[JuiceFS]:
    """A volume with these files in it, and nothing of it left afterwards."""
    found = JuiceFS(place, bucket)
    found.format()
    try:
        found.fill(place.plain, items)
        found.clear_cache()
        yield found
    finally:
        found.remove()
