"""report, publish and unpublish; and the mounts that CONFIG asks for."""

from __future__ import annotations

import time

from cache_worker.holder import mounting
from cache_worker.holder.publishing import Publication
from cache_worker.holder.wanted import Wanted, check
from cacheop.api import mount_modes
from cacheop.api.errors import (
    CacheopError,
    NotFoundError,
    ProtocolError,
    UserError,
    WorkerUnavailable,
    to_wire,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cache_worker.holder.connection import Connection
    from cache_worker.holder.keeper import Keeper
    from cache_worker.holder.lanes import Lanes
    from cache_worker.holder.records import Mount

PUBLISH_SECONDS = 900.0  # a command's; the worker itself answers within the Dataset's grace
END_SECONDS = 1.0


class Commands:
    """Owned by the loop's thread, but for `_done`, which a publication calls on its own."""

    def __init__(
        self,
        keeper: Keeper,
        lanes: Lanes,
        wanted: list[Wanted],
        wake_up: Callable[[], None],
        report: Callable[[str], None],
    ) -> None:
        self._keeper = keeper
        self._lanes = lanes
        self._wanted = wanted
        self._wake_up = wake_up
        self._report = report
        self._under_way: dict[str, tuple[Publication, Connection | None]] = {}
        """Target -> the publication, and who asked for it (None: CONFIG)."""
        self._finished: list[Publication] = []

    def begin(self) -> None:
        """Publish what CONFIG wants and nobody may hold. Raises UserError for a bad target."""
        missing = [wanted for wanted in self._wanted if self._keeper.at(wanted.target) is None]
        for wanted in missing:
            mounting.prepare(wanted.target, self._keeper.place.path)
        for wanted in missing:
            self._publish(wanted, None)

    def publish_again(self, dead: list[Mount]) -> None:
        """Mounts that nobody held any more."""
        wishes = {wanted.target: wanted for wanted in self._wanted}
        for mount in dead:
            as_before = Wanted(mount.target, mount.mode, mount.version)
            self._publish(wishes.get(mount.target, as_before), None)

    def finish(self) -> None:
        """Take over what publications have made."""
        while self._finished:
            self._finish(self._finished.pop(0))

    def end(self) -> None:
        """Undo what is half made; the next holder begins anew."""
        under_way = [publication for publication, _ in self._under_way.values()]
        for publication in under_way:
            publication.cancel()
        deadline = time.monotonic() + END_SECONDS
        for publication in under_way:
            publication.wait(deadline - time.monotonic())
        self.finish()

    def look(self) -> None:
        """Something was mounted or unmounted."""
        for mount_id in self._keeper.look():
            self._lanes.end(mount_id)

    def left(self, connection: Connection) -> None:
        """Nobody waits for what `connection` asked for."""
        for publication, asker in self._under_way.values():
            if asker is connection:
                publication.cancel()

    def obey(self, connection: Connection, message: dict[str, object]) -> None:
        """Do what a command says and answer, `publish` later. Raises ProtocolError."""
        try:
            if message["op"] == "report":
                connection.send({"mounts": self._mounts()})
                return
            if connection.uid != 0:
                raise UserError(f"{message['op']} is root's", hint="Run it as root")
            if message["op"] == "publish":
                self._obey_publish(connection, check(message))
                return
            self._unpublish(message)
            connection.send({"ok": True})
        except ProtocolError:
            raise
        except CacheopError as error:
            connection.send({"error": to_wire(error)})

    def _mounts(self) -> list[dict[str, object]]:
        return [
            {
                **held.mount.as_json(),
                "held": held.kept is not None,
                "supervisor": held.acknowledged,
                "lanes": self._lanes.serving(held.mount.id),
            }
            for held in self._keeper.held.values()
        ]

    def _obey_publish(self, connection: Connection, wanted: Wanted) -> None:
        held = self._keeper.at(wanted.target)
        if held is not None:
            mount = held.mount
            same_mode = wanted.mode in ("", mount_modes.AUTO, mount.mode)
            if not same_mode or wanted.version not in ("", mount.version):
                raise UserError(
                    f"{wanted.target} shows version {mount.version} in mode {mount.mode} already",
                    hint="Unpublish it first, or choose another directory",
                )
            connection.send({"mount": mount.as_json()})
        elif wanted.target in self._under_way:
            raise UserError(
                f"{wanted.target} is being mounted already", hint="Wait until `report` shows it"
            )
        else:
            mounting.prepare(wanted.target, self._keeper.place.path)
            self._publish(wanted, connection)

    def _publish(self, wanted: Wanted, asker: Connection | None) -> None:
        publication = Publication(
            self._keeper.place,
            self._keeper.new_id(),
            wanted.target,
            wanted.mode,
            wanted.version,
            deadline=time.monotonic() + PUBLISH_SECONDS if asker else float("inf"),
            done=self._done,
            report=self._report,
        )
        self._under_way[wanted.target] = publication, asker
        publication.start()

    def _done(self, publication: Publication) -> None:
        """On the publication's thread."""
        self._finished.append(publication)
        self._wake_up()

    def _finish(self, publication: Publication) -> None:
        _, asker = self._under_way.pop(publication.target)
        if publication.cancelled or publication.mount is None:
            error = publication.error
            if publication.cancelled:
                self._keeper.undo(publication)
                error = NotFoundError(f"{publication.target} was unpublished meanwhile")
            if asker is not None:
                asker.send({"error": to_wire(error or WorkerUnavailable("it did not end"))})
            return
        self._keeper.add(publication)
        if asker is not None:
            asker.send({"mount": publication.mount.as_json()})

    def _unpublish(self, message: dict[str, object]) -> None:
        if message.get("all") is True:
            targets = [held.mount.target for held in self._keeper.held.values()]
            targets += self._under_way
        else:
            targets = [check({"target": message.get("target")}).target]
        failure: CacheopError | None = None
        for target in targets:
            if target in self._under_way:
                self._under_way[target][0].cancel()
                continue
            try:
                self._lanes.end(self._keeper.remove(target))
            except CacheopError as error:
                failure = error  # the others go nevertheless
        if failure is not None:
            raise failure
