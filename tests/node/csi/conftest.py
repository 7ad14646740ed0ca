from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fakes.kubelet import Kubelet
from tests.fakes.running_worker import s3_mount

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SIZES = {"train/a.bin": 10_000, "train/b.bin": 0, "train/deep/d.bin": 300_000, "val/c.bin": 9 << 20}


class Stored:
    """A bucket of files."""

    def __init__(self, s3, name: str, sizes: dict[str, int]) -> None:
        self.s3, self.bucket = s3, name
        self.checksums: dict[str, str] = {}
        for key, size in sizes.items():
            body = random.randbytes(size)
            s3.http.put(name, key, body)
            self.checksums[key] = hashlib.sha256(body).hexdigest()

    @property
    def mounts(self) -> list[dict[str, object]]:
        return [s3_mount(self.s3.endpoint, self.bucket)]


@pytest.fixture
def stored(s3, bucket) -> Callable[..., Stored]:
    def make(sizes: dict[str, int] | None = None) -> Stored:
        return Stored(s3, bucket(), SIZES if sizes is None else sizes)

    return make


@pytest.fixture
def kubelet() -> Iterator[Kubelet]:
    if os.geteuid() != 0 or not Path("/dev/fuse").exists():
        pytest.skip("needs root and /dev/fuse")
    made = Kubelet()
    try:
        made.start()
        yield made
    finally:
        print(made.tail() if made.log.exists() else "")
        for pod in made.pods:
            print(pod.name, pod.log.read_text()[-2000:] if pod.log.exists() else "")
        made.close()


def checksums(directory: Path) -> dict[str, str]:
    """Of every file below `directory`."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }
