"""The operator's process: waits to be the active one, then watches and works until it is not."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from typing import TYPE_CHECKING, Any

from cacheop.api.errors import CacheopError
from cacheop.operator import handlers, health
from cacheop.operator.access import find_access
from cacheop.operator.api import Api, ApiError
from cacheop.operator.apply import Applier
from cacheop.operator.events import Poster
from cacheop.operator.gather import Gatherer
from cacheop.operator.kinds import DATALOAD, DATASET, Kind
from cacheop.operator.lease import Lease, Lost
from cacheop.operator.loading import Loader
from cacheop.operator.observe import Observer
from cacheop.operator.polling import Poller
from cacheop.operator.reconcile import Reconciler
from cacheop.operator.reconcile_load import LoadReconciler
from cacheop.operator.redis_users import RedisUsers
from cacheop.operator.settings import from_environment
from cacheop.operator.shared_objects import LIST_SECONDS, SharedObjects
from cacheop.operator.telling import Teller
from cacheop.operator.work_queue import WorkQueue

if TYPE_CHECKING:
    from cacheop.operator.access import Access
    from cacheop.operator.observe import Place
    from cacheop.operator.settings import Settings

log = logging.getLogger("cacheop.operator")

WORKERS = 16
TIDY_SECONDS = 60.0
RETRY_SECONDS = 2.0


class Operator:
    """Everything of one process while it is the active one."""

    def __init__(self, api: Api, access: Access, settings: Settings, lease: Lease) -> None:
        self._api, self._access = api, access
        self._settings, self._lease = settings, lease
        self.queue = WorkQueue(self._do)
        self._observer = Observer(
            api, settings, self._concerns, lambda namespace: self.queue.add(("secret", namespace))
        )
        self._poller = Poller(self._observer, settings, self._concerns)
        self._teller = Teller(settings, self._was_told)
        self._loader = Loader(settings, self._load_told)
        self._shared = SharedObjects(api, settings, self._observer)
        gatherer = Gatherer(api, settings, self._observer, self._poller, self._teller, self._loader)
        self._datasets = Reconciler(
            api,
            settings,
            self._observer,
            gatherer,
            Applier(api, self._observer),
            self._teller,
            self._loader,
            Poster(api, settings.identity),
        )
        self._loads = LoadReconciler(api, settings, self._observer, self._loader, self._concerns)
        self._redis = RedisUsers(settings, self._observer)

    async def run(self) -> None:
        """Until cancelled, or until another operator is the active one."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._lease.hold())
            group.create_task(self._observer.run())
            # Nothing is decided before everything that is there has been seen.
            await self._observer.listed()
            await self._served()
            group.create_task(handlers.run(self._access, self._settings.namespaces, self._saw))
            group.create_task(self.queue.run(WORKERS))
            group.create_task(self._poller.run())
            group.create_task(self._redis.run())
            group.create_task(self._tidy())

    async def _served(self) -> None:
        """Until the CRDs are there: kopf looks for them once."""
        for kind in (DATASET, DATALOAD):
            for namespace in self._settings.namespaces or ("",):
                while True:
                    try:
                        async for _ in self._api.pages(kind, namespace):
                            break
                        break
                    except ApiError as error:
                        log.warning("waiting for the CRD of %s: %s", kind.plural, error)
                        await asyncio.sleep(RETRY_SECONDS)

    async def _do(self, key: tuple[str, ...]) -> float | None:
        await self._lease.acting.wait()
        match key:
            case ("dataset", namespace, name):
                return await self._datasets.dataset((namespace, name))
            case ("load", namespace, name):
                return await self._loads.load((namespace, name))
            case ("secret", namespace):
                return await self._shared.secret(namespace)
            case _:
                return await self._shared.datasets()

    def _saw(self, kind: Kind, event: str | None, document: dict[str, Any]) -> None:
        """What kopf tells: a Dataset or DataLoad as it is now."""
        metadata = document["metadata"]
        place = (metadata["namespace"], metadata["name"])
        gone = event == "DELETED"
        if kind is not DATASET:
            self._observer.saw_load(document, gone=gone)
            self.queue.add(("load", *place))
            return
        new = place not in self._observer.datasets
        self._observer.saw_dataset(document, gone=gone)
        self.queue.add(("dataset", *place))
        if new or gone:
            self._redis.soon()
            self.queue.add(("secret", place[0]))
            self.queue.add_later(("datasets",), LIST_SECONDS)
        for load in self._observer.loads_of(place):  # they wait for its version
            self.queue.add(("load", *load))

    def _concerns(self, place: Place) -> None:
        self.queue.add(("dataset", *place))
        for load in self._observer.loads_of(place):
            self.queue.add(("load", *load))

    def _was_told(self, place: Place, uid: str) -> None:
        self._poller.soon(uid)
        self._concerns(place)

    def _load_told(self, key: tuple[str, str, str]) -> None:
        place = self._loads.place_of(key[2])
        self.queue.add(("load", *place) if place else ("dataset", *key[:2]))

    async def _tidy(self) -> None:
        """Now and then, should an event have been lost: Secrets, the list for node plugins."""
        while True:
            self.queue.add_later(("datasets",), LIST_SECONDS)
            await asyncio.sleep(TIDY_SECONDS)
            self._teller.forget_pods({pod.uid for pod in self._observer.all_workers()})
            for namespace in self._observer.namespaces() | self._shared.namespaces:
                self.queue.add(("secret", namespace))


async def _serve(settings: Settings) -> None:
    access = find_access()
    api = Api(access)
    lease = Lease(api, settings.namespace, settings.identity, settings.lease_seconds)
    server = await health.serve(settings.http_port, api, lease)
    try:
        while True:
            try:
                await lease.acquire()
                break
            except ApiError as error:
                log.warning("cannot ask for the Lease: %s", error)
                await asyncio.sleep(RETRY_SECONDS)
        await Operator(api, access, settings, lease).run()
    finally:
        server.close()
        if lease.acting.is_set():
            await lease.release()
        await api.close()


async def _until_signal(settings: Settings) -> int:
    task = asyncio.ensure_future(_serve(settings))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        return await _outcome(task)
    except asyncio.CancelledError:
        return 0


async def _outcome(task: asyncio.Future[None]) -> int:
    """The exit code that the end of `task` means."""
    try:
        await task
    except* Lost as lost:
        log.warning("%s; this one begins anew as the one that waits", lost.exceptions[0])
        return_code = 1
    except* handlers.Stopped:
        return_code = 0
    else:
        return_code = 0
    return return_code


def main() -> int:
    """Until a signal. Exit code 2: it was told something wrong."""
    logging.basicConfig(
        level=os.environ.get("CACHEOP_LOG", "INFO"),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    try:
        return asyncio.run(_until_signal(from_environment()))
    except CacheopError as error:
        log.error("%s", error)  # noqa: TRY400 - the message says it all
        return error.exit_code
