"""The S3 server on a host of the lab, and what it holds: a catalog of pieces with checksums."""

from __future__ import annotations

import contextlib
import json
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import xxhash

from examples.demo.server import S3Server
from tests.fakes.running_worker import s3_mount

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.fakes.lab.network import Host

PIECE_BYTES = 8 << 20
BUCKET = "lab"


@dataclass(frozen=True, slots=True)
class Piece:
    """What is read at once: a file, or a chunk's worth of a bigger one."""

    path: str
    offset: int
    length: int
    checksum: str
    """xxh3-64, in hex."""


@dataclass(frozen=True, slots=True)
class Files:
    """Files of one size below one prefix of the bucket: what one Dataset has."""

    prefix: str
    pieces: tuple[Piece, ...]
    catalog: Path
    """The pieces as JSON, for readers."""

    @property
    def total_bytes(self) -> int:
        """Their size together."""
        return sum(piece.length for piece in self.pieces)

    @property
    def count(self) -> int:
        """How many files."""
        return len({piece.path for piece in self.pieces})


class Origin:
    """A running S3 server on `host`."""

    def __init__(self, host: Host, s3: S3Server, directory: Path) -> None:
        self.host, self.s3, self._directory = host, s3, directory

    def make(self, prefix: str, count: int, size_bytes: int) -> Files:
        """Random files, always the same for the same prefix, in the bucket."""
        source, pieces = random.Random(prefix), []
        folder = self._directory / prefix
        for number in range(count):
            path = f"{number // 100:03d}/{number:05d}.bin"
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            with (folder / path).open("wb") as file:
                for offset in range(0, size_bytes, PIECE_BYTES):
                    data = source.randbytes(min(PIECE_BYTES, size_bytes - offset))
                    file.write(data)
                    checksum = xxhash.xxh3_64_hexdigest(data)
                    pieces.append(Piece(path, offset, len(data), checksum))
        with self.host.inside():
            self.s3.upload(BUCKET, folder, prefix=f"{prefix}/")
        catalog = self._directory / f"{prefix}.json"
        catalog.write_text(json.dumps([[p.path, p.offset, p.length, p.checksum] for p in pieces]))
        return Files(prefix, tuple(pieces), catalog)

    def mounts(self, files: Files) -> list[dict[str, Any]]:
        """`spec.mounts` of a Dataset of those files alone."""
        return [s3_mount(self.s3.endpoint, BUCKET, f"{files.prefix}/")]


@contextlib.contextmanager
def origin(host: Host, directory: Path) -> Iterator[Origin]:
    """Start the server on `host`; its data is in `directory`."""
    s3 = S3Server(directory / "s3", host=host.address)
    with host.inside():
        s3.start()
    try:
        yield Origin(host, s3, directory)
    finally:
        s3.stop()


def share(files: Files, keep: Sequence[str]) -> int:
    """Bytes of the pieces of these paths."""
    wanted = set(keep)
    return sum(piece.length for piece in files.pieces if piece.path in wanted)
