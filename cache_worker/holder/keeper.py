"""All mounts of one Dataset on this node: kept, given to the supervisor, published and unpublished.

Owned by the loop's thread. Who holds the fds: the holder, the supervisor and the mount processes;
a holder that was started again gets them from the supervisor, so until that has spoken, a recorded
mount that mountinfo shows is neither used nor removed.
"""

from __future__ import annotations

from cache_worker.holder import kept, messages, mountinfo, mounting, native, records
from cache_worker.holder.mounting import FUSE_TYPE
from cacheop.api import mount_modes
from cacheop.api.errors import NotFoundError, ProtocolError, StoreError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cache_worker.holder.connection import Connection
    from cache_worker.holder.kept import Kept
    from cache_worker.holder.mountinfo import Mounted
    from cache_worker.holder.publishing import Place, Publication
    from cache_worker.holder.records import Mount


class Held:
    """A mount, and what the holder knows of it."""

    __slots__ = ("acknowledged", "kept", "mount")

    def __init__(self, mount: Mount, fds: Kept | None, *, acknowledged: bool = False) -> None:
        self.mount = mount
        self.kept = fds
        """None: the supervisor has the fds, if anybody has."""
        self.acknowledged = acknowledged
        """Whether the supervisor said that it has the fds too."""


class Keeper:
    """The mounts."""

    def __init__(
        self,
        place: Place,
        directory: int,
        report: Callable[[str], None],
        drop: Callable[[Connection], None],
    ) -> None:
        self.place = place
        self.held: dict[str, Held] = {}
        self.supervisor: Connection | None = None
        self._directory = directory
        """`<root>/mounts`."""
        self._report = report
        self._drop = drop
        self._greeting = False
        """The supervisor is still telling what it has."""
        self._unknown: set[str] = set()
        self._next_number = 0

    def recall(self) -> None:
        """At the start: the recorded mounts that are still there wait for the supervisor."""
        mounts = mounting.read_mounts()
        for mount in records.load(self._directory):
            self._next_number = max(self._next_number, int(mount.id[1:]) + 1)
            if self._is_there(mount, mounts):
                self.held[mount.id] = Held(mount, None)
            else:
                records.remove(self._directory, mount.id)

    def new_id(self) -> str:
        """One that no mount has had."""
        self._next_number += 1
        return f"m{self._next_number - 1}"

    def at(self, target: str) -> Held | None:
        """The mount at `target` (resolved)."""
        return next((h for h in self.held.values() if h.mount.target == target), None)

    def close(self) -> None:
        """Let go of every fd, of no mount."""
        for held in self.held.values():
            if held.kept is not None:
                held.kept.close()
        self.held.clear()

    # --- the supervisor ---

    def hold(self, connection: Connection) -> None:
        """`connection` is the supervisor's from now on; it says next what it has."""
        if self.supervisor is not None and self.supervisor is not connection:
            self._drop(self.supervisor)
        self.supervisor = connection
        self._greeting = True
        self._unknown = set()
        for held in self.held.values():
            held.acknowledged = False

    def supervisor_left(self) -> None:
        """It died, or another one came."""
        self.supervisor = None
        self._greeting = False
        for held in self.held.values():
            held.acknowledged = False

    def acknowledge(self, mount_id: str) -> None:
        """The supervisor has taken what it was sent."""
        if mount_id in self.held:
            self.held[mount_id].acknowledged = True

    def take_back(self, raw: object, fds: list[int]) -> None:
        """The supervisor holds this mount; `fds` become ours. Raises ProtocolError."""
        taken = False
        try:
            mount = records.parse(raw)
            known = self.held.get(mount.id)
            if known is not None and known.kept is not None:
                known.acknowledged = _same(known.mount, mount)
                if not known.acknowledged:
                    self._unknown.add(mount.id)
            elif (known is not None and not _same(known.mount, mount)) or not self._is_there(
                mount, mounting.read_mounts()
            ):
                self._unknown.add(mount.id)
            else:
                # Its mode may have changed unheard by the supervisor, so the record goes first.
                taken = self._take(known.mount if known is not None else mount, fds)
                if taken and known is not None and known.mount.mode != mount.mode:
                    self._tell({"op": "changed", "mount": known.mount.as_json()})
        finally:
            if not taken:
                messages.close_all(fds)

    def _take(self, mount: Mount, fds: list[int]) -> bool:
        try:
            taken = kept.take(mount, fds, self.place.fd, self.place.memory_name(mount.id))
        except ProtocolError as error:
            self._report(f"the supervisor holds something else: {error}")
            self._unknown.add(mount.id)
            return False
        self._next_number = max(self._next_number, int(mount.id[1:]) + 1)
        self.held[mount.id] = Held(mount, taken, acknowledged=True)
        self._save(mount)
        return True

    def supervisor_told_all(self) -> list[Mount]:
        """The supervisor has nothing more: what neither has is dead, removed and returned."""
        dead = [held.mount for held in self.held.values() if held.kept is None]
        self._greeting = False
        for mount_id in sorted(self._unknown - {mount.id for mount in dead}):
            self._tell({"op": "gone", "id": mount_id})
        for mount in dead:
            self._report(f"nobody holds the mount at {mount.target} any more: made anew")
            try:
                self._remove(mount)
            except StoreError as error:
                self._report(str(error))
                self._forget(mount)
        for held in self.held.values():
            if not held.acknowledged:
                self._give(held)
        self._tell({"op": "ready"})
        return dead

    def _give(self, held: Held) -> None:
        if held.kept is not None and not self._greeting:
            self._tell({"op": "mount", "mount": held.mount.as_json()}, held.kept.fds)

    def _tell(self, message: dict[str, object], fds: list[int] | None = None) -> None:
        if self.supervisor is not None:
            self.supervisor.send(message, fds or ())

    # --- mounts come, change and go ---

    def add(self, done: Publication) -> None:
        """A mount was made: remember it, give it to the supervisor."""
        assert done.mount is not None, "the publication ended well"
        assert done.kept is not None, "the publication ended well"
        held = self.held[done.id] = Held(done.mount, done.kept)
        self._save(done.mount)
        self._report(f"{done.target}: {done.mount.mode}, {done.mount.why}")
        self._give(held)

    def undo(self, done: Publication) -> None:
        """A mount was made that nobody wants any more."""
        if done.mount is None or done.kept is None:
            return
        self.held[done.id] = Held(done.mount, done.kept)
        self._remove(done.mount)

    def change(self, mount: Mount, mode: str, why: str) -> None:
        """The kernel's INIT allowed another mode than was meant."""
        mount.mode, mount.why = mode, why
        self._save(mount)
        self._report(f"{mount.target}: {mode}, {why}")
        if not self._greeting:
            self._tell({"op": "changed", "mount": mount.as_json()})

    def remove(self, target: str) -> str:
        """Unpublish; the id of what was there. Raises NotFoundError, StoreError."""
        held = self.at(target)
        if held is None:
            raise NotFoundError(f"nothing of this Dataset is mounted at {target}")
        self._remove(held.mount)
        return held.mount.id

    def look(self) -> list[str]:
        """After mountinfo changed: forget what somebody else unmounted; its ids."""
        mounts = mounting.read_mounts()
        lost = [
            held.mount
            for held in self.held.values()
            if held.kept is not None and not self._is_there(held.mount, mounts)
        ]
        for mount in lost:
            self._report(f"{mount.target} was unmounted")
            self._forget(mount)
        return [mount.id for mount in lost]

    def _remove(self, mount: Mount) -> None:
        """Detach at once, whoever uses it; end the connection when no mount of it is left."""
        if self._is_there(mount, mounting.read_mounts()):
            seen = mountinfo.topmost(mounting.read_mounts(), mount.target)
            if seen is None or seen.device != mount.device:
                raise StoreError(
                    f"cannot unmount {mount.target}: something else was mounted over it",
                    hint="Unmount that first",
                )
            abort = mounting.Abort(mount.device) if mount.mode != mount_modes.NATIVE else None
            try:
                mounting.detach(mount.target)
            finally:
                if abort is not None:
                    left = {other.device for other in mounting.read_mounts()}
                    abort.finish(last=mount.device not in left)
        self._forget(mount)

    def _forget(self, mount: Mount) -> None:
        held = self.held.pop(mount.id)
        if not self._greeting:
            self._tell({"op": "gone", "id": mount.id})
        else:
            self._unknown.add(mount.id)
        if held.kept is not None:
            held.kept.close()
        try:
            records.remove(self._directory, mount.id)
        except OSError as error:
            self._report(f"cannot remove the record of {mount.target}: {error}")

    def _save(self, mount: Mount) -> None:
        try:
            records.save(self._directory, mount)
        except OSError as error:  # a full disk: the mount works, only a crash would forget it
            self._report(f"cannot record the mount at {mount.target}: {error}")

    def _is_there(self, mount: Mount, mounts: list[Mounted]) -> bool:
        """Whether mountinfo shows `mount`, as a mount of this Dataset."""
        if mount.mode == mount_modes.NATIVE:
            return native.is_bound(mounts, mount.target, self.place.path, mount.version)
        source = mounting.source_of(self.place.path)
        return any(
            (seen.target, seen.kind, seen.device, seen.source)
            == (mount.target, FUSE_TYPE, mount.device, source)
            for seen in mounts
        )


def _same(one: Mount, other: Mount) -> bool:
    """Whether both mean one mount; its mode may have changed unheard."""
    ours, theirs = ((m.target, m.version, m.rows, m.device) for m in (one, other))
    return ours == theirs
