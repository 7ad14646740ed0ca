"""Where it all happens: one temporary directory, the data in it, the S3 server, the readers."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from benchmarks.mount.figures import Sample
from benchmarks.mount.fleet import Item, Job, Ran
from benchmarks.mount.machine import cpu_by_name, drop_caches
from benchmarks.setting import SMALL_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from benchmarks.mount.systems import System
    from benchmarks.setting import Setting

GIB = 1 << 30
PIECE_BYTES = 16 << 20
FLEET_SECONDS = 600
BUCKET = "mount"


@dataclass(frozen=True, slots=True)
class MountSizes:
    """How much is measured. Quick shows that it works, its figures are not for quoting."""

    small_files: int
    big_bytes: int
    all_bytes: int
    """Of the row with limited memory: small files, the big one and one more."""
    reader_limit_bytes: int
    rounds: int
    few_rounds: int
    """Of what takes long: cold, from disk, confined, JuiceFS."""
    listed: tuple[int, int]
    """Entries of `ls -lR` and of `find`."""

    @classmethod
    def of(cls, *, quick: bool) -> MountSizes:
        """A full or a quick run."""
        if quick:
            return cls(1000, 128 << 20, 300_000_000, 64 << 20, 2, 1, (10_000, 50_000))
        return cls(20_000, 2 * GIB, 5_000_000_000, GIB, 3, 1, (100_000, 1_000_000))


class Place:
    """The data as plain files and in the bucket, and a way to let readers loose on a system."""

    def __init__(self, setting: Setting, sizes: MountSizes, modes: tuple[str, ...]) -> None:
        self.setting, self.sizes, self.modes = setting, sizes, modes
        self.failures: list[str] = []
        self.small = [
            (f"small/{number // 100:03d}/{number:05d}.jpg", 0, SMALL_BYTES)
            for number in range(sizes.small_files)
        ]
        self.big = [("big/one.bin", 0, sizes.big_bytes)]
        rest_bytes = sizes.all_bytes - sizes.big_bytes - SMALL_BYTES * sizes.small_files
        self.rest = [("rest/one.bin", 0, max(rest_bytes, 1 << 20))]

    @property
    def directory(self) -> Path:
        """The one temporary directory."""
        return self.setting.directory

    @property
    def plain(self) -> Path:
        """The same files on ext4."""
        return self.setting.plain

    @property
    def everything(self) -> list[Item]:
        """All bytes; large files in pieces, so that readers share them."""
        pieces = [
            (path, offset, min(PIECE_BYTES, length - offset))
            for path, _, length in [*self.big, *self.rest]
            for offset in range(0, length, PIECE_BYTES)
        ]
        return [*self.small, *pieces]

    @contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """Go on after a failure, which is told at the end: the rest of a long run counts."""
        try:
            yield
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            self.failures.append(f"{what}: {error}")
            print(f"failed: {what}: {error}", file=sys.stderr, flush=True)

    def make_data(self) -> None:
        """Random bytes by seed, as plain files and in the bucket."""
        source = random.Random(1)
        for path, _, length in [*self.small, *self.big, *self.rest]:
            target = self.plain / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                for at in range(0, length, 1 << 20):
                    file.write(source.randbytes(min(1 << 20, length - at)))
        os.sync()
        self.setting.s3.upload(BUCKET, self.plain)

    def run(
        self,
        system: System,
        items: Sequence[Item],
        *,
        kind: str = "read",
        readers: int = 1,
        seed: int = 1,
        procs: Sequence[str] = (),
    ) -> Sample:
        """One timed pass, with the CPU time of the readers and of whom the system runs."""
        processes = system.processes()
        before = cpu_by_name(processes)
        found = self._fleet(Job(kind, str(system.root), items, readers, seed, procs))
        after = cpu_by_name(processes)
        wanted = sum(length for _, _, length in items)
        if kind == "read" and found.bytes != wanted:
            raise RuntimeError(f"{system.name} gave {found.bytes}, not {wanted} bytes")
        spent = {name: after[name] - before[name] for name in before}
        return Sample(
            found.seconds, found.files, found.bytes, {"reader": found.cpu_seconds, **spent}
        )

    def verify(self, system: System, items: Sequence[Item]) -> None:
        """Compare checksums with the plain files, not timed. Raises RuntimeError."""
        ours, theirs = (
            self._fleet(Job("check", str(root), items, 2)) for root in (system.root, self.plain)
        )
        if (ours.bytes, ours.checksums) != (theirs.bytes, theirs.checksums):
            raise RuntimeError(f"{system.name} gave other bytes than were put into S3")

    def look(self, system: System, items: Sequence[Item]) -> None:
        """Attributes of every file, not timed: warm metadata for every system alike."""
        self._fleet(Job("stat", str(system.root), items, 2))

    def read_in(self, systems: Sequence[System], items: Sequence[Item]) -> None:
        """The files of all `systems` into an empty page cache, mixed at random, not timed.

        One after the other would not be fair: the first gets the pages that were just freed,
        scattered and in falling order, the next one whole runs. Copying from the former takes 10
        to 20 % longer as long as they stay: a directory beside a bind mount of it shows as much.
        """
        mixed = [
            (f"{system.root}/{path}"[1:], offset, length)
            for system in systems
            for path, offset, length in items
        ]
        drop_caches()
        self._fleet(Job("read", "", mixed, readers=len(systems)))

    def _fleet(self, job: Job) -> Ran:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.mount.fleet"],
            input=json.dumps(asdict(job)),
            stdout=subprocess.PIPE,
            check=True,
            text=True,
            timeout=FLEET_SECONDS,
        )
        return Ran(**json.loads(done.stdout))
