"""`python -m cache_worker work CONFIG`: one Dataset on one node. Wiring, start, stop.

The only writer of the store. Everything runs on one asyncio loop; four threads write and hash large
chunks. Owned here: the table, the sockets, the background tasks, and the origins.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cache_worker import report, settings
from cache_worker.cache import Cache
from cache_worker.changes import policy_name
from cache_worker.cluster.clustered import Clustered
from cache_worker.configuring import Configuring
from cache_worker.control import Server
from cache_worker.disk import Disk, require_writable
from cache_worker.eviction import policy_named
from cache_worker.expiring import Expiring
from cache_worker.flow import Rate
from cache_worker.http import HttpServer
from cache_worker.indexing import Indexing
from cache_worker.load import Load
from cache_worker.metrics import exporter, render
from cache_worker.mounted import Mounts
from cache_worker.operations import WorkerOperations
from cache_worker.origins import open_origin
from cache_worker.planning.planning import Planning
from cache_worker.publishing import Publishing
from cache_worker.reading import Reading
from cache_worker.schedule import Schedule
from cache_worker.space import Space
from cache_worker.store import Store
from cache_worker.tablefile import await_former
from cache_worker.upkeep import Upkeep
from cache_worker.versions import Versions
from cache_worker.watchdog import watched
from cacheop.api import names
from cacheop.api.errors import CacheopError, UserError
from cacheop.api.tokens import client_token

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator
    from pathlib import Path

    from cache_worker.cluster.draining import Drain
    from cache_worker.indexing import Running
    from cache_worker.origins import Origin
    from cache_worker.versions import Version
    from cacheop.api.dataset import Mount

log = logging.getLogger("cacheop.worker")

WRITER_THREADS = 4
STOP_SECONDS = 8.0
ALONE: dict[str, Any] = {
    "zone": "",
    "draining": False,
    "owned_cached_bytes": None,
    "members": [],
    "peer": None,
}
READABLE_UMASK = 0o022
"""Readers of any user open the files themselves, whatever umask we were started with."""


class Worker:
    """Everything of one running worker. Build it on the loop that runs it."""

    def __init__(self, config: settings.Settings, disk: Disk) -> None:
        self.settings = config
        require_writable(config.root)
        self.configuring = Configuring(self, disk.space("WORKER:SPACE", str(config.root))[1])
        space = Space(0)
        self.configuring.fit(space)
        policy = policy_named(policy_name(config.dataset.spec))
        self._pool = ThreadPoolExecutor(WRITER_THREADS, thread_name_prefix="store")
        self.versions = Versions(config.root, disk)
        self.store = Store(self.versions, disk, space, policy, self._pool)
        self._origins: dict[str, Origin] = {}
        self.reading = Reading(self.store.policy)
        self._former: dict[str, Mount] = {}
        self.cache = Cache(self.store, self._origin)
        self.cache.suspended = config.dataset.spec.suspend or self.versions.state.suspended
        self.indexing = Indexing(config, self.store, self.cache)
        self.indexing.choose_version()
        self.clustered = (
            Clustered(config, self.cache, self.indexing, self.reading)
            if config.cluster.peers
            else None
        )
        self.planning = Planning(
            self.cache, self.reading, lambda: self.settings.dataset.spec.prefetch
        )
        self.schedule = Schedule(self)
        self.mounts = Mounts(config.root)
        self._upkeep = Upkeep(self.store, self.indexing)
        self.publishing = Publishing(
            config, self.cache, self.indexing, lambda: self._upkeep.verifying, self.clustered
        )
        self._registry = exporter(self)
        self._server = Server(WorkerOperations(self))
        self._http = HttpServer(lambda: render(self._registry), self.health)
        self._addresses = {"http": "", "tcp": ""}
        self._stopping = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    # -- life -------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until `stop`, then close everything."""
        await self._listen()
        for name in self.versions.broken:
            log.warning("version %s cannot be opened and is dropped", name)
        if self.clustered is not None:
            for work in self.clustered.tasks():
                self.spawn(work)
        self.spawn(self.schedule.run())
        self.spawn(self.planning.run())
        self.spawn(Expiring(self.store, lambda: self.settings.dataset.spec.cache).run())
        for work in (*self._upkeep.tasks(), *self.configuring.tasks()):
            self.spawn(work)
        log.info("worker of %s/%s is up", self.settings.namespace, self.settings.name)
        with watched(asyncio.get_running_loop()):
            await self._stopping.wait()
        async with asyncio.timeout(STOP_SECONDS):
            await self._close()

    def stop(self) -> None:
        """End `run`."""
        self._stopping.set()

    async def _listen(self) -> None:
        config = self.settings
        all_ops, client_ops = names.CONTROL_OPS, names.CLIENT_OPS
        with _usable(config.root):
            await self._server.listen_unix(config.root / names.WORKER_SOCKET, 0o600, all_ops)
            await self._server.listen_unix(config.root / names.CLIENT_SOCKET, 0o666, client_ops)
        if self.clustered is not None:
            with _listening(config.cluster.peers):
                self.clustered.start()
        if config.tcp:
            if config.token_file is None:
                raise UserError("listening on TCP needs a token", hint="Set token_file")
            token = config.token_file.read_text().strip()
            tokens = {"client": client_token(token), "control": token}
            with _listening(config.tcp) as (host, port):
                self._addresses["tcp"] = await self._server.listen_tcp(host, port, tokens)
        if config.http:
            with _listening(config.http) as (host, port):
                self._addresses["http"] = await self._http.listen(host, port)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` in the background, until it ends or we do."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception():
            log.error("background work failed", exc_info=task.exception())

    async def _close(self) -> None:
        self._http.close()
        await self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self.clustered is not None:
            await self.clustered.close()
        await self.indexing.close()
        await self.cache.close()
        for origin in self._origins.values():
            await origin.close()
        for name, count in self.cache.counters.version_origin_bytes.items():
            kept = self.versions.state.origin_bytes
            kept[name] = kept.get(name, 0) + count
        self.versions.save()
        self._pool.shutdown()
        self.store.close(clean=True)

    # -- what others ask --------------------------------------------------------------------------

    async def refresh(self, progress: Callable[[Running], None] | None = None) -> dict[str, Any]:
        """A new version, listed here or by who lists for the cluster."""
        if self.clustered is not None:
            return await self.clustered.following.refresh(progress)
        return await self.indexing.refresh(progress)

    def load(self, version: Version, rows: list[range], replicas: int | None) -> Load:
        """Of `rows`, our share where each chunk is to be on `replicas` nodes; None = all."""
        limit = self.settings.dataset.spec.prefetch.max_origin_bytes_per_second
        if self.clustered is None:
            return Load(self.cache, version, rows, Rate(limit))
        cluster = self.clustered.cluster
        rate = Rate(limit and max(1, limit // len(cluster.view.members)))
        if replicas is None:
            return Load(self.cache, version, rows, rate)
        return Load(self.cache, version, rows, rate, cluster.share(version, replicas))

    def drain(self) -> Drain:
        """Hand over what only we have."""
        if self.clustered is None:
            raise UserError("this node is in no cluster: there is nobody to hand anything to")
        return self.clustered.drain()

    def _origin(self, mount_point: str) -> Origin:
        found = self._origins.get(mount_point)
        if found is None:
            for mount in (*self.settings.dataset.spec.mounts, *self._former.values()):
                if mount.mount_point == mount_point:
                    found = open_origin(mount, self.settings.secrets)
                    self._origins[mount_point] = found
                    return found
            raise UserError(f"{mount_point} is not among spec.mounts any more")
        return found

    def reopen_origins(self, former: Iterable[Mount]) -> None:
        """Mounts or their options changed: the next read opens its origin anew.

        Versions that were made of `former` mounts are read from them as long as we run.
        """
        self._former.update((mount.mount_point, mount) for mount in former)
        before, self._origins = self._origins, {}
        for origin in before.values():
            self.spawn(origin.close())

    def suspend(self, suspended: bool) -> None:
        """Stop (or allow) all origin reads; cached reads go on. Survives a restart."""
        self.cache.suspended = suspended
        self.versions.state.suspended = suspended
        self.versions.save()

    def identity(self) -> dict[str, Any]:
        """Who this worker is."""
        config = self.settings
        return {"namespace": config.namespace, "dataset": config.name, "node": config.node}

    def health(self) -> dict[str, Any]:
        """Ready or not, and why."""
        facts = self._facts(cached_bytes=0)
        phase = report.phase(facts)
        return {
            "ready": phase == "Ready",
            "phase": phase,
            "version": facts.version,
            "conditions": report.conditions(facts),
        }

    def status(self) -> dict[str, Any]:
        """See docs/protocol.md."""
        version = self.versions.current()
        running = self.indexing.running
        skipped = version.index.meta.get("skipped", {}) if version else {}
        return report.status(
            self._facts(self.store.cached_bytes(version) if version else 0),
            {**self.identity(), "pid": os.getpid()},
            skipped,
            {
                "file_count": version.index.files if version else 0,
                "origin_requests": self.cache.counters.origin_requests,
                "indexing": {"keys": running.keys, "seconds": running.seconds} if running else None,
                "addresses": self._addresses,
                "mounts": self.mounts.status(),
                "root": str(self.settings.root),
                "plans": self.planning.status(),
                "read_sources": self.cache.counters.sources(),
                **(self.clustered.status() if self.clustered else ALONE),
            },
        )

    def _facts(self, cached_bytes: int) -> report.Facts:
        version = self.versions.current()
        counters, space = self.cache.counters, self.store.space
        name = version.name if version else ""
        return report.Facts(
            version=name,
            bytes_total=version.index.bytes if version else 0,
            cached_bytes=cached_bytes,
            quota_bytes=space.quota_bytes,
            used_bytes=space.used_bytes,
            suspended=self.cache.suspended,
            indexing=self.indexing.running is not None,
            index_error=self.indexing.error,
            origin_error=self.cache.origin_health.error,
            disk_fault=self.store.fault(),
            short_of_disk=space.is_short_of_disk,
            origin_bytes=counters.version_origin_bytes.get(name, 0)
            + self.versions.state.origin_bytes.get(name, 0),
            demand_origin_bytes=counters.demand_origin_bytes,
            read_bytes=sum(counters.read_bytes.values()),
            local_read_bytes=counters.read_bytes["local"],
            unseen_reads=self.mounts.are_unseen(),
            pinned_above_quota=self.store.pinned_above_quota(),
        )


@contextmanager
def _listening(address: str) -> Iterator[tuple[str, int]]:
    """Host and port to listen on; UserError if they cannot be had: to try again would not help."""
    host, _, port = address.rpartition(":")
    try:
        yield host.strip("[]"), int(port)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        hint = "Name another one; port 0 picks a free one"
        raise UserError(f"cannot listen on {address}: {reason}", hint=hint) from error


@contextmanager
def _usable(root: Path) -> Iterator[None]:
    """A cache directory that we cannot begin with is the user's to mend: no restart mends it."""
    try:
        yield
    except UserError:
        raise
    except CacheopError as error:
        where = "" if str(root) in error.message else f"the cache directory {root}: "
        hint = error.hint or "Delete it to begin empty, or name another one with --cache"
        raise UserError(where + error.message, hint=hint) from error
    except OSError as error:
        raise UserError(
            f"cannot use the cache directory {root}: {error.filename or ''}: {error.strerror}",
            hint="Mend or delete it, or name another one with --cache",
        ) from error


async def _serve(config: settings.Settings) -> None:
    with _usable(config.root):
        await_former(config.root)  # before anything is read that it may still write
        worker = Worker(config, Disk())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.stop)
    await worker.run()


def main(arguments: list[str]) -> int:
    """Run until told to stop. Exit code 2: the configuration is wrong."""
    logging.basicConfig(
        level=os.environ.get("CACHEOP_LOG", "INFO"),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    code = 0
    os.umask(READABLE_UMASK)
    try:
        asyncio.run(_serve(settings.load(arguments[0])))
    except CacheopError as error:
        log.error("%s", error)  # noqa: TRY400 - the message says it all
        code = error.exit_code
    except Exception:
        log.exception("the worker failed")
        code = 1
    # obstore may abort in the interpreter's own shutdown: everything is flushed, so leave at once.
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
