"""The bytes of a Dataset on this node: sparse files, the chunk table, the room they take.

All methods run on the worker's loop; only writing and hashing of large chunks goes to threads,
on an fd that the loop opened. The rules that readers rely on are in docs/architecture.md.
"""

from __future__ import annotations

import asyncio
import errno
import os
import random
import time
from typing import TYPE_CHECKING

import xxhash

from cache_worker.eviction import Candidate
from cache_worker.tablefile import FORMER, TableFile
from cacheop.api.chunk import chunk_count, chunk_span
from cacheop.api.table import COMPLETE, PRESENT, STATE_MASK, SUSPECT

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from cache_worker.disk import Disk
    from cache_worker.eviction import Policy
    from cache_worker.space import Space
    from cache_worker.versions import Version, Versions

INLINE_BYTES = 512 << 10
"""Up to this much is written and hashed on the loop: a thread switch costs more (about 60 us)."""
FAULT_SECONDS = 10.0
"""How long a tier whose disk failed is read through before it is tried again."""
SAMPLE_WINDOW = 4096
SAMPLE_SIZE = 64
SAMPLE_ROUNDS = 32


class Store:
    """Owns the chunk table. Opened and closed by the worker."""

    def __init__(
        self, versions: Versions, disk: Disk, space: Space, policy: Policy, pool: Executor
    ) -> None:
        self.versions = versions
        self.space = space
        self.table = TableFile(versions.root, disk)
        self.evicted_bytes = 0
        self.errors: dict[str, int] = {}
        self._disk = disk
        self._policy = policy
        self._pool = pool
        self._random = random.Random()
        self._fault = ""
        self._fault_until = 0.0
        space.used_bytes = self.table.cached_bytes(0, self.table.used_slots)
        self.look_at_disk()

    def close(self, *, clean: bool) -> None:
        """No fill may be under way."""
        self.table.close(clean=clean)

    # -- what is here -----------------------------------------------------------------------------

    def is_present(self, version: Version, row: int, chunk: int) -> bool:
        """Whether the chunk is there and known good."""
        return self.table.state(version.slots.first_slot(row) + chunk) == PRESENT

    def cached_bytes(self, version: Version) -> int:
        """Bytes of the version that are here."""
        return sum(self.table.cached_bytes(first, n) for first, n in version.slot_runs())

    def fault(self) -> str:
        """Why nothing is stored now, or empty."""
        if self._fault and time.monotonic() >= self._fault_until:
            self._fault = ""
        return self._fault

    def look_at_disk(self) -> None:
        """Note how much room the file system has."""
        try:
            self.space.saw_disk(*self._disk.space("STORE:SPACE", str(self.versions.root)))
        except OSError as error:
            self._failed("space", error)

    # -- reading ----------------------------------------------------------------------------------

    def has_file(self, version: Version, row: int) -> bool:
        """Whether the file can be opened in this version's tree; links it in if another has it."""
        path = version.path(row)
        if os.path.exists(path):
            return True
        source = self._same_file(version, row)
        if source is None:
            return False
        try:
            self._make_parent(path)
            self._disk.link("STORE:LINK", source, path)
        except FileExistsError:
            return True
        except OSError as error:
            self._failed("link", error)
            return False
        return True

    async def read(
        self, version: Version, row: int, chunk: int, offset: int, length: int
    ) -> bytes | None:
        """Bytes of a PRESENT chunk, by file offset; None if it went away meanwhile."""
        slot = version.slots.first_slot(row) + chunk
        before = self.table.state_byte(slot)
        if before & STATE_MASK != PRESENT:
            return None
        path = version.path(row)
        try:
            if length <= INLINE_BYTES:
                data = self._read_file(path, offset, length)
            else:
                loop = asyncio.get_running_loop()
                data = await loop.run_in_executor(self._pool, self._read_file, path, offset, length)
        except OSError as error:
            self._failed("read", error)
            return None
        if self.table.state_byte(slot) != before or len(data) != length:
            return None
        return data

    def _read_file(self, path: str, offset: int, length: int) -> bytes:
        fd = self._disk.open("STORE:READ", path, os.O_RDONLY)
        try:
            return self._disk.read_at("STORE:READ", fd, length, offset)
        finally:
            os.close(fd)

    async def verify(self, version: Version, row: int, chunk: int) -> bool:
        """Check a SUSPECT chunk against its checksum: PRESENT, or the file's bytes are dropped."""
        first = version.slots.first_slot(row)
        slot = first + chunk
        before = self.table.state_byte(slot)
        offset, length = chunk_span(version.index.size(row), chunk)
        self.has_file(version, row)
        good = self.table.length(slot) == length
        if good and length <= INLINE_BYTES:
            good = self._checksum_on_disk(version.path(row), offset, length) == (
                self.table.checksum(slot)
            )
        elif good:
            loop = asyncio.get_running_loop()
            found = await loop.run_in_executor(
                self._pool, self._checksum_on_disk, version.path(row), offset, length
            )
            good = found == self.table.checksum(slot)
        if self.table.state_byte(slot) != before:
            return self.table.state(slot) == PRESENT
        if not good:
            self.errors["verify"] = self.errors.get("verify", 0) + 1
            self.drop_file(version, row)
            return False
        self.table.step(slot, "verify")
        self.table.complete_if_whole(first, chunk_count(version.index.size(row)))
        return True

    def _checksum_on_disk(self, path: str, offset: int, length: int) -> int | None:
        try:
            fd = self._disk.open("STORE:VERIFY", path, os.O_RDONLY)
        except OSError:
            return None  # counted by the caller as a chunk that failed its check
        try:
            data = self._disk.read_at("STORE:VERIFY", fd, length, offset)
        except OSError:
            return None
        finally:
            os.close(fd)
        return xxhash.xxh3_64_intdigest(data) if len(data) == length else None

    # -- filling ----------------------------------------------------------------------------------

    def reserve(self, version: Version, row: int, chunk: int) -> bool:
        """Take room for an ABSENT chunk, evicting if need be. False: read it through instead."""
        length = chunk_span(version.index.size(row), chunk)[1]
        if self.fault():
            return False
        missing = self.space.missing(length)
        if missing and length <= self.space.limit_bytes:
            self.evict(missing)
        if not self.space.reserve(length):
            return False
        self.table.step(version.slots.first_slot(row) + chunk, "reserve")
        return True

    def abandon(self, version: Version, row: int, chunk: int) -> None:
        """The fill of a reserved chunk failed."""
        self.space.release(chunk_span(version.index.size(row), chunk)[1])
        self.table.step(version.slots.first_slot(row) + chunk, "abandon")

    async def write(self, version: Version, row: int, chunk: int, data: memoryview) -> bool:
        """Store a reserved chunk and flag it PRESENT. False if the disk failed (then abandoned)."""
        size = version.index.size(row)
        first = version.slots.first_slot(row)
        offset, length = chunk_span(size, chunk)
        try:
            fd = self._open_for_fill(version, row, size)
            try:
                if length <= INLINE_BYTES:
                    checksum = self._write_and_hash(fd, data, offset)
                else:
                    loop = asyncio.get_running_loop()
                    checksum = await loop.run_in_executor(
                        self._pool, self._write_and_hash, fd, data, offset
                    )
            finally:
                os.close(fd)
        except OSError as error:
            self._failed("write", error)
            self.abandon(version, row, chunk)
            return False
        self.table.record(first + chunk, checksum, length)
        self.table.step(first + chunk, "write")
        self.space.commit(length)
        self.table.used(first, int(time.time()), 0)
        self.table.complete_if_whole(first, chunk_count(size))
        excess = self.space.above_high()
        if excess:
            self.evict(excess)
        return True

    def _write_and_hash(self, fd: int, data: memoryview, offset: int) -> int:
        self._disk.write_at("STORE:WRITE", fd, data, offset)
        return xxhash.xxh3_64_intdigest(data)

    def _open_for_fill(self, version: Version, row: int, size: int) -> int:
        """The one inode that all versions of this content share; made on the loop, so only once."""
        path = version.path(row)
        flags = os.O_WRONLY
        if len(self.versions.all()) == 1 or not self.has_file(version, row):
            flags |= os.O_CREAT
        try:
            fd = self._disk.open("STORE:FILL", path, flags)
        except FileNotFoundError:
            self._make_parent(path)
            fd = self._disk.open("STORE:FILL", path, os.O_WRONLY | os.O_CREAT)
        try:
            if chunk_count(size) > 1 and os.fstat(fd).st_size != size:
                self._disk.set_size("STORE:SIZE", fd, size)
        except OSError:
            os.close(fd)
            raise
        return fd

    def _make_parent(self, path: str) -> None:
        self._disk.make_directory("STORE:MKDIR", path.rpartition("/")[0])

    def _same_file(self, version: Version, row: int) -> str | None:
        """The path of the same content in another version, if it is there."""
        slot = version.slots.first_slot(row)
        for other in self.versions.all():
            if other is version:
                continue
            other_row = other.row_at(slot)
            if other_row is not None and other.slots.first_slot(other_row) == slot:
                path = other.path(other_row)
                if os.path.exists(path):
                    return path
        return None

    def _failed(self, what: str, error: OSError) -> None:
        self.errors[what] = self.errors.get(what, 0) + 1
        if what == "write":
            self._fault = f"writing to {self.versions.root} failed: {error.strerror or error}"
            self._fault_until = time.monotonic() + FAULT_SECONDS
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                self.look_at_disk()

    # -- dropping ---------------------------------------------------------------------------------

    def evict(self, need_bytes: int) -> int:
        """Let the policy choose what goes until `need_bytes` went. The bytes that went."""
        gone = 0
        for _ in range(SAMPLE_ROUNDS):
            if gone >= need_bytes:
                break
            found = self._sample()
            victims = self._policy.victims(list(found), need_bytes - gone)
            if not victims:
                break
            for victim in victims:
                gone += self.drop_file(*found[victim])
        return gone

    def _sample(self) -> dict[Candidate, tuple[Version, int]]:
        """Up to SAMPLE_SIZE cached files from random places of the table."""
        slots: list[int] = []
        used = self.table.used_slots
        start = self._random.randrange(max(1, used))
        for at in range(0, used, SAMPLE_WINDOW):
            window = (start + at) % used
            count = min(SAMPLE_WINDOW, used - window)
            states = self.table.states(window, count)
            here = [window + i for i, state in enumerate(states) if state in (PRESENT, SUSPECT)]
            slots += self._random.sample(here, min(len(here), SAMPLE_SIZE // 4))
            if len(slots) >= SAMPLE_SIZE:
                break
        found: dict[Candidate, tuple[Version, int]] = {}
        for slot in slots:
            owner = self.owner(slot)
            if owner is None:
                continue
            version, row = owner
            first = version.slots.first_slot(row)
            accessed, reads = self.table.last_use(first)
            cached = self.table.cached_bytes(first, chunk_count(version.index.size(row)))
            found[Candidate(first, cached, accessed, reads)] = owner
        return found

    def owner(self, slot: int) -> tuple[Version, int] | None:
        """Which file, in which version, a slot belongs to."""
        for version in self.versions.all():
            row = version.row_at(slot)
            if row is not None:
                return version, row
        return None

    def drop_file(self, version: Version, row: int) -> int:
        """Evict what is here of a file, in every version that shares it. The bytes that went.

        A file that is (or was) complete is unlinked, since readers may hold it; any other is
        punched.
        """
        size = version.index.size(row)
        first, count = version.slots.first_slot(row), chunk_count(size)
        was = self.table.file_state(first)
        self.table.incomplete(first)
        gone = 0
        punch: list[tuple[int, int]] = []
        for chunk, state in enumerate(self.table.states(first, count)):
            if state in (PRESENT, SUSPECT):
                gone += self.table.length(first + chunk)
                self.table.step(first + chunk, "drop")
                punch.append(chunk_span(size, chunk))
        try:
            if was in (COMPLETE, FORMER):
                self._unlink_everywhere(first)
            elif punch:
                self._punch(version, row, punch)
        except OSError as error:
            # The flags are gone, so nobody reads the bytes; the blocks come back next time.
            self._failed("drop", error)
        self.space.dropped(gone)
        self.evicted_bytes += gone
        return gone

    def _unlink_everywhere(self, first_slot: int) -> None:
        for version in self.versions.all():
            row = version.row_at(first_slot)
            if row is not None:
                self._disk.unlink("STORE:UNLINK", version.path(row))

    def _punch(self, version: Version, row: int, spans: list[tuple[int, int]]) -> None:
        if not self.has_file(version, row):
            return
        fd = self._disk.open("STORE:PUNCH", version.path(row), os.O_WRONLY)
        try:
            for offset, length in spans:
                self._disk.punch("STORE:PUNCH", fd, offset, length)
        finally:
            os.close(fd)

    async def evict_rows(self, version: Version, rows: list[range]) -> tuple[int, int]:
        """Evict the files among `rows`. (bytes, files) that went. Lets others run in between."""
        gone_bytes = gone_files = 0
        for level in rows:
            for row in level:
                if version.index.is_directory(row):
                    continue
                gone = self.drop_file(version, row)
                gone_bytes += gone
                gone_files += gone > 0
                if row % 256 == 0:
                    await asyncio.sleep(0)
        return gone_bytes, gone_files

    def forget(self, runs: list[tuple[int, int]]) -> None:
        """Slots that no kept version uses any more."""
        for first, count in runs:
            self.space.dropped(self.table.forget(first, min(count, self.table.used_slots - first)))

    def missing(self, version: Version, row: int, chunks: range) -> list[int]:
        """The chunks of a file that are not PRESENT."""
        first = version.slots.first_slot(row)
        states = self.table.states(first + chunks.start, len(chunks))
        return [c for c, state in zip(chunks, states, strict=True) if state != PRESENT]

    def suspects(self, first: int, count: int) -> list[int]:
        """Slots to be verified in a window of the table."""
        states = self.table.states(first, count)
        return [first + i for i, state in enumerate(states) if state == SUSPECT]
