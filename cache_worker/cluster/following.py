"""One version for all: who lists it, and how the others get it.

The owner of the key `manifest` lists the origin, once; members tell each other which version they
have and its generation (a count, so no clock matters). Who sees a newer one fetches its manifest
from a member that has it. A member that was away does so before it serves new mounts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING, Any

from cache_worker.peers.errors import PeerUnavailable
from cacheop.api.errors import CacheopError, StoreError, WorkerUnavailable
from cacheop.api.names import MANIFEST_DIR, fetched_paths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from cache_worker.cluster.cluster import Cluster
    from cache_worker.cluster.view import Member
    from cache_worker.indexing import Indexing, Running
    from cache_worker.versions import Versions

log = logging.getLogger("cacheop.worker")

LOOK_SECONDS = 1.0
LOOK_AGAIN_SECONDS = 30.0
"""At most so long after a failure: each one costs a listing, or a manifest of a peer."""
FIRST_LOOK_SECONDS = 0.1
"""The same while there is no version: who lists may have been started a moment after us."""
CATCH_UP_SECONDS = 3.0
"""How long new mounts wait to hear what the cluster's version is."""
CURRENT_WAIT_SECONDS = 5.0
REFRESH_SECONDS = 3600.0
PIECE_BYTES = 8 << 20
PIECE_SECONDS = 30.0


def newest(members: Iterable[Member]) -> list[Member]:
    """The members that have the newest version, by node; [] if nobody has one. Pure."""
    having = [member for member in members if member.version]
    most = max(((m.generation, m.version) for m in having), default=None)
    return sorted((m for m in having if (m.generation, m.version) == most), key=lambda m: m.node)


class Following:
    """Owned by the worker: `run` is one of its background tasks."""

    def __init__(self, indexing: Indexing, versions: Versions, cluster: Cluster) -> None:
        self._indexing, self._versions, self._cluster = indexing, versions, cluster
        self._caught_up = asyncio.Event()
        self._adopting = asyncio.Lock()
        self._watching = False
        """Whether we looked before: what appears from now on was just made."""
        self._failures = 0
        """In a row, of following."""
        indexing.listed = self._listed

    @property
    def my_facts(self) -> Member:
        """What we tell the others of us."""
        return self._cluster.my_facts

    def expects(self, version: str) -> bool:
        """Whether a member has that version, so that we will have it soon."""
        return any(member.version == version for member in self._cluster.view.members)

    async def run(self) -> None:
        """Follow until cancelled."""
        await self._cluster.heard_of_others()
        while True:
            pause = LOOK_SECONDS if self._versions.current() else FIRST_LOOK_SECONDS
            try:
                await self._follow()
                self._failures = 0
            except (CacheopError, OSError) as error:
                log.warning("cannot follow the cluster's version: %s", error)
                pause = min(LOOK_AGAIN_SECONDS, LOOK_SECONDS * 2.0 ** min(self._failures, 9))
                self._failures += 1
            await self._cluster.changed(pause)

    async def caught_up(self, at_most_seconds: float) -> None:
        """Return when it is known what the cluster's version is, or cannot be learned soon."""
        started = time.monotonic()
        while not self._caught_up.is_set():
            waited = time.monotonic() - started
            if waited > at_most_seconds or (
                waited > CATCH_UP_SECONDS and not self._indexing.running
            ):
                log.warning("serving without the version that other members may have")
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FIRST_LOOK_SECONDS):
                    await self._caught_up.wait()

    async def has_version(self) -> None:
        """Return when there is a version."""
        await self._caught_up.wait()

    async def _follow(self) -> None:
        having = newest(self._cluster.view.members)
        if not having and not self._indexing.running:
            await self._make_first()
        elif having and all(member.node != self._cluster.me for member in having):
            found = having[self._failures % len(having)]
            await self.adopt(found.version, found.generation, found, fresh=self._watching)
        self._watching = True
        if self._versions.current():
            self._caught_up.set()

    async def _make_first(self) -> None:
        lister = self._cluster.lister()
        if lister is None or lister.node == self._cluster.me:
            await self.list_here()
            return
        answer = await self._cluster.ask(
            lister, "current", {"wait_seconds": CURRENT_WAIT_SECONDS}, 2 * CURRENT_WAIT_SECONDS
        )
        if answer.get("version"):
            generation = int(answer["generation"])
            await self.adopt(answer["version"], generation, lister, fresh=True)

    async def current(self, wait_seconds: float) -> dict[str, Any]:
        """For a peer: the version here and its generation; waits while the first one is listed."""
        deadline = time.monotonic() + wait_seconds
        while not self._versions.current() and time.monotonic() < deadline:
            if self._indexing.error is not None and not self._indexing.running:
                raise self._indexing.error
            await asyncio.sleep(0.02)
        state = self._versions.state
        return {"version": self._versions.newest(), "generation": state.generation}

    async def refresh(self, progress: Callable[[Running], None] | None = None) -> dict[str, Any]:
        """Let the one who lists make a new version, and adopt it."""
        gone: set[str] = set()
        while True:
            lister = self._cluster.lister(gone)
            if lister is None or lister.node == self._cluster.me:
                return await self.list_here(progress)
            try:
                found = await self._cluster.ask(lister, "refresh", {}, REFRESH_SECONDS)
                break
            except WorkerUnavailable as error:
                if not isinstance(error.__cause__, PeerUnavailable):
                    raise
                gone.add(lister.node)  # and its time as a member is not over yet
        version, generation = str(found["version"]), int(found["generation"])
        adopted = await self.adopt(version, generation, lister, fresh=True)
        return {**found, **adopted}

    async def list_here(self, progress: Callable[[Running], None] | None = None) -> dict[str, Any]:
        """We list. The result and its generation."""
        found = await self._indexing.refresh(progress)
        return {**found, "generation": self._versions.state.generation}

    def _listed(self, version: str, before: list[str]) -> None:
        """We listed `version`; these were kept before, oldest first."""
        state = self._versions.state
        if before[-1:] != [version] or not state.generation:
            seen = [member.generation for member in self._cluster.view.members]
            state.generation = max([state.generation, *seen]) + 1
            self._versions.save()
        if version not in before:
            self._cluster.adopted(version, before)
        self._announce()

    async def adopt(
        self, version: str, generation: int, source: Member, *, fresh: bool
    ) -> dict[str, Any]:
        """Make `version` ours, from a member that has it; what is known of it, {} if it was here.

        `fresh`: it was made just now. Else others may hold chunks that we are to own now.
        """
        async with self._adopting:
            state = self._versions.state
            found: dict[str, Any] = {}
            if version not in state.kept:
                before = list(state.kept)
                found = await self._indexing.adopt(version, lambda: self._fetch(version, source))
                if fresh:
                    self._cluster.adopted(version, before)
            elif self._versions.newest() != version:
                self._versions.renew(version)
                self._indexing.choose_version()
            state.generation = max(generation, state.generation)
            self._versions.save()
            self._announce()
            return found

    def _announce(self) -> None:
        state = self._versions.state
        self._cluster.announce(version=self._versions.newest(), generation=state.generation)

    async def _fetch(self, version: str, source: Member) -> None:
        root = self._versions.root
        (root / MANIFEST_DIR).mkdir(parents=True, exist_ok=True)
        for kind, path in zip(("index", "arrow"), fetched_paths(version), strict=True):
            await self._fetch_file(version, kind, root / path, source)

    async def _fetch_file(self, version: str, kind: str, path: Path, source: Member) -> None:
        path.unlink(missing_ok=True)
        at = 0
        while True:
            meta = {"version": version, "kind": kind, "offset": at, "length": PIECE_BYTES}
            answer, piece = await self._cluster.ask_file(source, meta, PIECE_SECONDS)
            await asyncio.to_thread(_append, path, piece)
            at += len(piece)
            if at >= int(answer["size"]):
                return
            if not piece:
                raise StoreError(f"{source.node} gave only {at} bytes of version {version}")


def _append(path: Path, piece: bytes | memoryview) -> None:
    """In a thread, which opens and closes: it may still write when its task was cancelled."""
    with path.open("ab") as file:
        file.write(piece)
