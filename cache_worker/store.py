"""The bytes of a Dataset on this node: sparse files, the chunk table, the room they take.

All methods run on the worker's loop; only writing and hashing of large chunks goes to threads,
on an fd that the loop opened. The rules that readers rely on are in docs/architecture.md.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
from typing import TYPE_CHECKING, Any, TypeVar

import xxhash

from cache_worker.inodes import Inodes
from cache_worker.tablefile import FORMER, TableFile
from cache_worker.victims import Victims
from cacheop.api.chunk import chunk_count, chunk_span
from cacheop.api.table import COMPLETE, PRESENT, STATE_MASK, SUSPECT

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from concurrent.futures import Executor

    from cache_worker.disk import Disk
    from cache_worker.eviction.policy import Policy
    from cache_worker.space import Space
    from cache_worker.versions import Version, Versions

T = TypeVar("T")

INLINE_BYTES = 512 << 10
"""Up to this much is written and hashed on the loop: a thread switch costs more (about 60 us)."""
FAULT_SECONDS = 10.0
"""How long a tier whose disk failed is read through before it is tried again."""
HAND_OVER_ROWS = 64
"""How many files of a version that goes are looked at before others get a turn."""
SAMPLE_ROUNDS = 32


class Store:
    """Owns the chunk table. Opened and closed by the worker."""

    def __init__(
        self, versions: Versions, disk: Disk, space: Space, policy: Policy, pool: Executor
    ) -> None:
        self.versions = versions
        self.space = space
        self.table = TableFile(versions.root, disk)
        self.inodes = Inodes(versions, disk)
        self.policy = policy
        self.victims = Victims(versions, self.table, policy)
        self.evicted_bytes = 0
        self.errors: dict[str, int] = {}
        self._disk = disk
        self._pool = pool
        self._fault = ""
        self._fault_until = 0.0
        self._too_little_went = False
        for version in versions.all():
            self.table.use_slots(version.slots_end())
        space.used_bytes = self.table.cached_bytes(0, self.table.used_slots)
        self.use(policy)
        self.look_at_disk()

    def use(self, policy: Policy) -> None:
        """Let this policy choose from now on."""
        self.policy = self.victims.policy = policy
        if policy.remembers_order:
            for slot in self.table.by_last_use():
                policy.kept(slot)

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
        try:
            return self.inodes.find(version, row)
        except OSError as error:
            self._failed("link", error)
            return False

    async def read(
        self, version: Version, row: int, chunk: int, offset: int, length: int
    ) -> bytes | None:
        """Bytes of a PRESENT chunk, by file offset; None if it went away meanwhile."""
        slot = version.slots.first_slot(row) + chunk
        before = self.table.state_byte(slot)
        if before & STATE_MASK != PRESENT:
            return None
        try:
            data = await self._do(length, self._read_file, version.path(row), offset, length)
        except OSError as error:
            self._failed("read", error)
            return None
        if self.table.state_byte(slot) != before or len(data) != length:
            return None
        return data

    async def _do(self, length: int, call: Callable[..., T], *arguments: Any) -> T:
        """Disk work on `length` bytes: here, or in a thread where that is worth the switch."""
        if length <= INLINE_BYTES:
            return call(*arguments)
        return await asyncio.get_running_loop().run_in_executor(self._pool, call, *arguments)

    def _read_file(self, path: str, offset: int, length: int, label: str = "STORE:READ") -> bytes:
        fd = self._disk.open(label, path, os.O_RDONLY)
        try:
            return self._disk.read_at(label, fd, length, offset)
        finally:
            os.close(fd)

    async def verify(self, version: Version, row: int, chunk: int) -> bool:
        """Check a SUSPECT chunk against its checksum: PRESENT, or the file's bytes are dropped."""
        first = version.slots.first_slot(row)
        slot = first + chunk
        before = self.table.state_byte(slot)
        if before & STATE_MASK != SUSPECT:  # a reader was quicker than the look at all of them
            return before & STATE_MASK == PRESENT
        offset, length = chunk_span(version.index.size(row), chunk)
        self.has_file(version, row)
        good = self.table.length(slot) == length
        if good:
            path = version.path(row)
            found = await self._do(length, self._checksum_on_disk, path, offset, length)
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

    async def recheck(self, version: Version, row: int, chunk: int) -> bool:
        """Look once more at a chunk that somebody got bad bytes of; what is bad is dropped."""
        slot = version.slots.first_slot(row) + chunk
        if self.table.state(slot) == PRESENT:
            self.table.step(slot, "distrust")
        return await self.verify(version, row, chunk)

    def _checksum_on_disk(self, path: str, offset: int, length: int) -> int | None:
        try:
            data = self._read_file(path, offset, length, "STORE:VERIFY")
        except OSError:
            return None  # counted by the caller as a chunk that failed its check
        return xxhash.xxh3_64_intdigest(data) if len(data) == length else None

    # -- filling ----------------------------------------------------------------------------------

    def reserve(
        self, version: Version, row: int, chunk: int, *, copy: bool = False, ahead: bool = False
    ) -> bool:
        """Take room for an ABSENT chunk, evicting if need be. False: read it through instead.

        False too when the policy does not admit it. `copy`: another node owns it, so nothing that
        we own is evicted for it. `ahead`: it is read in a moment, so what is worth least goes.
        """
        length = chunk_span(version.index.size(row), chunk)[1]
        if self.fault() or self.pinned_above_quota():
            return False
        slot = version.slots.first_slot(row) + chunk
        self.table.expect(slot, length)
        excess = self.space.to_evict(length)
        judged = slot if copy or not ahead else None
        if excess and self.evict(excess, only_copies=copy, newcomer=judged) < excess:
            return False
        if not self.space.reserve(length):
            return False
        self.table.step(slot, "reserve")
        return True

    def abandon(self, version: Version, row: int, chunk: int) -> None:
        """The fill of a reserved chunk failed."""
        self.space.release(chunk_span(version.index.size(row), chunk)[1])
        self.table.step(version.slots.first_slot(row) + chunk, "abandon")

    async def write(
        self,
        version: Version,
        row: int,
        chunk: int,
        data: memoryview,
        checksum: int | None = None,
    ) -> bool:
        """Store a reserved chunk and flag it PRESENT. False if the disk failed (then abandoned).

        `checksum` is known of what a peer gave, and was checked already.
        """
        size = version.index.size(row)
        first = version.slots.first_slot(row)
        offset, length = chunk_span(size, chunk)
        try:
            fd, new = self.inodes.open_for_fill(version, row, size)
            if new:
                self._holds_nothing(first, chunk_count(size))
            work = self._write_and_hash
            found, inode = await self._do(length, work, fd, data, offset, checksum)
            whole = self.inodes.is_at(version.path(row), inode)
        except BaseException as error:
            self.abandon(version, row, chunk)
            if not isinstance(error, OSError):
                raise
            self._failed("write", error)
            return False
        if not whole:  # dropped meanwhile: what was written is in no tree any more
            self.abandon(version, row, chunk)
            return False
        self.table.record(first + chunk, found, length)
        self.table.step(first + chunk, "write")
        self.space.commit(length)
        self.table.used(first, int(time.time()), 0)
        self.table.complete_if_whole(first, chunk_count(size))
        self.policy.kept(first + chunk)
        return True

    def _write_and_hash(
        self, fd: int, data: memoryview, offset: int, checksum: int | None
    ) -> tuple[int, os.stat_result]:
        """(checksum, what was written to). Closes `fd`: it must live as long as a thread writes."""
        try:
            self._disk.write_at("STORE:WRITE", fd, data, offset)
            if checksum is None:
                checksum = xxhash.xxh3_64_intdigest(data)
            return checksum, os.fstat(fd)
        finally:
            os.close(fd)

    def _holds_nothing(self, first: int, count: int) -> None:
        """A new inode was made: what the table believed to be in its predecessor is not in it."""
        self.table.incomplete(first)
        self.space.dropped(self._drop_chunks(first, range(count))[0])

    def _drop_chunks(self, first: int, chunks: Collection[int]) -> tuple[int, list[int]]:
        """Unflag what is here of some of a file's chunks. (bytes, chunks)."""
        here = [c for c in chunks if self.table.state(first + c) in (PRESENT, SUSPECT)]
        for chunk in here:
            self.table.step(first + chunk, "drop")
            self.policy.dropped(first + chunk)
        return sum(self.table.length(first + chunk) for chunk in here), here

    def _failed(self, what: str, error: OSError) -> None:
        self.errors[what] = self.errors.get(what, 0) + 1
        if what == "write":
            self._fault = f"writing to {self.versions.root} failed: {error.strerror or error}"
            self._fault_until = time.monotonic() + FAULT_SECONDS
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                self.look_at_disk()

    # -- dropping ---------------------------------------------------------------------------------

    def evict(
        self, need_bytes: int, *, only_copies: bool = False, newcomer: int | None = None
    ) -> int:
        """Let the policy choose what goes until `need_bytes` went. The bytes that went.

        Copies of what other nodes own go first; with `only_copies` nothing else goes. For a
        `newcomer` (a slot) only what the policy thinks is worth less.
        """
        self.victims.look()
        gone = 0
        if self.victims.owned:
            copies_for = newcomer if only_copies else None
            gone = self._evict(need_bytes, only_copies=True, newcomer=copies_for)
        if not only_copies and gone < need_bytes:
            gone += self._evict(need_bytes - gone, only_copies=False, newcomer=newcomer)
            if newcomer is None:
                self._too_little_went = gone < need_bytes
        return gone

    def _evict(self, need_bytes: int, *, only_copies: bool, newcomer: int | None) -> int:
        gone = 0
        for _ in range(SAMPLE_ROUNDS):
            before = gone
            chosen = self.victims.choose(
                need_bytes - gone, only_copies=only_copies, newcomer=newcomer
            )
            for slot in chosen:
                gone += self._drop_slot(slot)
            if gone >= need_bytes or gone == before:
                break
        return gone

    def _drop_slot(self, slot: int) -> int:
        """Drop a chunk, unless it went with another; the bytes that went."""
        if not self.victims.may_go(slot):
            return 0
        found = self.victims.goes_with(slot)
        if found is None:
            return 0
        file, chunks = found
        return self.drop_file(*file, chunks=chunks)

    def pinned_above_quota(self) -> frozenset[str]:
        """The versions that Native mounts pin, when the quota cannot be kept for them; else empty.

        As found by the last eviction: the worker begins one every second while it is above.
        """
        if self._too_little_went and self.space.above_high():
            return self.victims.pins.names
        return frozenset()

    def drop_file(
        self, version: Version, row: int, *, chunks: Collection[int] | None = None
    ) -> int:
        """Evict what is here of a file, in every version that shares it. The bytes that went.

        A file that is (or was) complete is unlinked, since readers may hold it; any other is
        punched. `chunks`: only these; of the first kind all must be among them, or nothing goes.
        """
        size = version.index.size(row)
        first, count = version.slots.first_slot(row), chunk_count(size)
        readers_may_hold_it = self.table.file_state(first) in (COMPLETE, FORMER)
        going = range(count) if chunks is None else chunks
        if readers_may_hold_it:
            if len(going) < count:
                return 0
            # Stays FORMER until it is unlinked: if we die or fail before, it must not be punched.
            self.table.former(first)
        gone, dropped = self._drop_chunks(first, going)
        try:
            if readers_may_hold_it:
                self.inodes.unlink(first)
                self.table.incomplete(first)
            elif dropped:
                self.inodes.punch(version, row, [chunk_span(size, chunk) for chunk in dropped])
        except OSError as error:
            # The flags are gone, so nobody reads the bytes; the blocks come back next time.
            self._failed("drop", error)
        self.space.dropped(gone, may_be_held=readers_may_hold_it)
        self.evicted_bytes += gone
        return gone

    async def hand_over(self, version: Version) -> None:
        """Before a version's tree goes: link what others share into a tree that stays."""
        for number, row in enumerate(version.slots.rows_by_slot()):
            first, count = version.slots.first_slot(row), chunk_count(version.index.size(row))
            if any(self.table.states(first, count)):
                sharer = self.inodes.sharer(version, row)
                if sharer is not None and not self.has_file(*sharer):
                    self.drop_file(version, row)
            if number % HAND_OVER_ROWS == 0:
                await asyncio.sleep(0)

    def forget(self, runs: list[tuple[int, int]]) -> None:
        """Slots that no kept version uses any more."""
        for first, count in runs:
            gone = self.table.forget(first, min(count, self.table.used_slots - first))
            self.space.dropped(gone, may_be_held=True)

    def missing(self, version: Version, row: int, chunks: range) -> list[int]:
        """The chunks of a file that are not PRESENT."""
        first = version.slots.first_slot(row)
        states = self.table.states(first + chunks.start, len(chunks))
        return [c for c, state in zip(chunks, states, strict=True) if state != PRESENT]

    def suspects(self, first: int, count: int) -> list[int]:
        """Slots to be verified in a window of the table."""
        states = self.table.states(first, count)
        return [first + i for i, state in enumerate(states) if state == SUSPECT]
