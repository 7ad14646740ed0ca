"""Making and removing what pods see. Everything may be asked twice, and after a crash.

Native, Passthrough and Fuse: a mount at the pod's target path, by the Dataset's holder. ZeroOpen:
one mount a version below `<kubelet dir>/plugins/cacheop.io/mounts/`, bound to each target, so that
the pods of a node share its pages. A worker's cache directory and the client's view are binds.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time

from cache_worker.csi import seen as seen_mounts
from cache_worker.csi import views
from cache_worker.csi.loading import Loads
from cache_worker.csi.refusals import (
    ABORTED,
    ALREADY_EXISTS,
    FAILED_PRECONDITION,
    UNAVAILABLE,
    Refusal,
)
from cache_worker.csi.seen import CACHE, FUSE, NATIVE, VIEW
from cache_worker.csi.wishes import COMPLETE, CacheWish, DatasetWish
from cache_worker.holder import mountinfo, mounting, publishing, syscalls, worker_line
from cacheop.api import mount_modes
from cacheop.api.errors import NotFoundError, UserError, WorkerUnavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cache_worker.csi.directories import Directories, Directory
    from cache_worker.csi.places import HeldPlace, Places
    from cache_worker.csi.seen import Seen
    from cache_worker.holder.publishing import Answer

POLL_SECONDS = 0.1
HEALTH_SECONDS = 3.0
VERSION_SECONDS = 15.0
CANCEL_SECONDS = 10.0
WAITING_MAX = 16  # calls of one Dataset that may wait at the same time


class Patience:
    """How long a call may wait, and whether somebody still waits for it."""

    def __init__(self, seconds: float, is_wanted: Callable[[], bool]) -> None:
        self._end = time.monotonic() + seconds
        self._is_wanted = is_wanted
        self.cancelled = threading.Event()

    def is_over(self) -> bool:
        """Whether to answer now, whatever there is to say."""
        return self.cancelled.is_set() or time.monotonic() > self._end or not self._is_wanted()


class Volumes:
    """Any thread may call; one operation at a time for each target."""

    def __init__(
        self,
        directories: Directories,
        places: Places,
        shared: str,
        generation: Callable[[], int],
        log: Callable[[str], None],
    ) -> None:
        self._directories, self._places = directories, places
        self._shared = shared
        """Where the mounts are that pods share."""
        self._generation = generation
        self._log = log
        self._loads = Loads()
        self._lock = threading.Lock()
        self._busy: dict[str, Patience | None] = {}
        self._waiting: dict[tuple[str, str], int] = {}

    # --- publish ---

    def publish(self, wish: CacheWish | DatasetWish, target: str, patience: Patience) -> None:
        """Show what `wish` says at `target` (resolved). Raises CacheopError."""
        with self._turn(target, patience):
            if isinstance(wish, CacheWish):
                self._publish_cache(wish, target)
            else:
                with self._place_in_queue(wish):
                    self._publish_dataset(wish, target, patience)

    def _publish_cache(self, wish: CacheWish, target: str) -> None:
        generation = self._generation()
        directory = self._directories.make(wish.namespace, wish.name, wish.uid, generation)
        held = self._places.hold(directory)
        if self._is_published(CACHE, [held], target):
            return
        mounting.prepare(target, held.place.path)
        tree = syscalls.clone_tree(held.place.fd)
        try:
            attributes = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV
            syscalls.restrict(tree, attributes | syscalls.MOUNT_ATTR_NOEXEC)
            syscalls.move_mount(tree, target)
        finally:
            os.close(tree)
        self._log(f"{target}: cache directory {held.place.path}")

    def _publish_dataset(self, wish: DatasetWish, target: str, patience: Patience) -> None:
        of_that_name = [self._places.hold(directory) for directory in self._found(wish)]
        kinds = (VIEW,) if wish.is_client else (FUSE, NATIVE)
        if any(self._is_published(kind, of_that_name, target) for kind in kinds):
            return
        held = self._ready(wish, patience)
        answer = self._wait_for(held, wish, patience)
        if wish.is_client:
            mounting.prepare(target, held.place.path)
            views.show(held.place, target)
            self._log(f"{target}: client's view of {held.place.path}")
            return
        mode, _ = mount_modes.choose(wish.mode or answer.mode, publishing.facts(held.place, answer))
        if mode == mount_modes.ZERO_OPEN:
            self._bind_shared(held, answer.version, target)
        else:
            held.ask({"op": "publish", "target": target, "mode": mode, "version": answer.version})

    def _bind_shared(self, held: HeldPlace, version: str, target: str) -> None:
        base = self._base(held, version)
        with held.sharing:
            wanted = {"target": base, "mode": mount_modes.ZERO_OPEN, "version": version}
            held.ask({"op": "publish", **wanted})
            if not any(mount["target"] == base and mount["held"] for mount in held.mounts()):
                raise WorkerUnavailable(f"the mount of {version} waits for its supervisor")
            mounting.prepare(target, held.place.path)
            # O_PATH and a clone ask the file system nothing, so a dead server hangs nobody here.
            fd = os.open(base, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                tree = syscalls.clone_tree(fd)
            finally:
                os.close(fd)
            try:
                syscalls.move_mount(tree, target)
            finally:
                os.close(tree)
        self._log(f"{target}: bound to {base}")

    def _base(self, held: HeldPlace, version: str) -> str:
        return f"{self._shared}/{held.directory.namespace}.{held.directory.uid}.{version}"

    def _found(self, wish: DatasetWish) -> list[Directory]:
        found = self._directories.of(wish.namespace, wish.name)
        return [d for d in found if wish.uid in ("", d.uid)]

    def _is_published(self, kind: str, places: list[HeldPlace], target: str) -> bool:
        """Whether `target` shows that already. What is dead or half made there is removed."""
        mounts = mounting.read_mounts()
        top = mountinfo.topmost(mounts, target)
        if top is None:
            return False
        found = seen_mounts.identify(mounts, top, self._directories.roots)
        held = next((h for h in places if found and h.place.path == found.root), None)
        if found is None or held is None or found.kind != kind:
            if found is not None and self._is_dead(found):
                mounting.detach(target)
                return False
            if found is not None and held is not None and {found.kind, kind} <= {FUSE, NATIVE}:
                return False  # the other one of these two is asked for next
            raise Refusal(
                ALREADY_EXISTS,
                f"something else is mounted at {target}: {top.kind} of {top.source}",
                hint="Delete the pod and create it again",
            )
        if self._is_dead(found) or (kind == VIEW and not found.is_read_only):
            mounting.detach(target)
            return False
        return True

    def _is_dead(self, found: Seen) -> bool:
        """Whether nobody can serve it any more."""
        if found.kind != FUSE:
            return False
        held = next((h for h in self._places.all() if h.place.path == found.root), None)
        return held is None or found.device not in {m["device"] for m in held.mounts()}

    # --- waiting ---

    def _ready(self, wish: DatasetWish, patience: Patience) -> HeldPlace:
        """The Dataset's directory once its worker is ready. Raises WorkerUnavailable, Refusal."""
        while True:
            try:
                held, health = self._alive(wish)
                if health.get("ready") is True:
                    return held
                why = _not_ready(wish, health)
            except WorkerUnavailable as error:
                why = error
            if patience.is_over():
                raise why
            time.sleep(POLL_SECONDS)

    def _alive(self, wish: DatasetWish) -> tuple[HeldPlace, dict[str, object]]:
        alive = []
        for directory in self._found(wish):
            held = self._places.hold(directory)
            with contextlib.suppress(WorkerUnavailable):
                deadline = time.monotonic() + HEALTH_SECONDS
                alive.append((held, worker_line.ask(held.place.fd, {"op": "health"}, deadline)))
        if len(alive) == 1:
            return alive[0]
        name = f"{wish.namespace}/{wish.name}"
        if alive:
            raise WorkerUnavailable(
                f"{len(alive)} Datasets were called {name}, and the old one is not gone yet",
                hint="It is mounted as soon as that is so",
            )
        raise WorkerUnavailable(
            f"no worker of the Dataset {name} answers on this node yet",
            hint=f"`kubectl -n {wish.namespace} get cds {wish.name}` says what holds it up",
        )

    def _wait_for(self, held: HeldPlace, wish: DatasetWish, patience: Patience) -> Answer:
        """The version to publish, as far cached as the wish says."""
        while True:
            deadline = time.monotonic() + VERSION_SECONDS
            answer = publishing.ask_version(held.place, wish.version, deadline)
            if not wish.wait_for or answer.complete:
                break
            load = self._loads.of(held, answer.version)
            if wish.wait_for != COMPLETE and load.has_ended and not load.failure:
                break
            if patience.is_over() or (load.has_ended and load.failure):
                percentage = max(load.percentage, answer.cached_percentage)
                why = f": {load.failure}" if load.failure else ""
                raise Refusal(
                    UNAVAILABLE,
                    f"{wish.namespace}/{wish.name} is {min(percentage, 99.9):.1f} % cached, and "
                    f"the volume says waitFor: {wish.wait_for}{why}",
                    hint="It is mounted when that is so",
                )
            time.sleep(POLL_SECONDS)
        if wish.wait_for:
            self._loads.forget(held, answer.version)
        return answer

    # --- unpublish ---

    def unpublish(self, target: str) -> None:
        """Take away what is ours at `target` (resolved); nothing there is fine. Never waits for a
        server. Raises CacheopError.
        """
        self._call_off(target)
        with self._turn(target, None):
            while (top := mountinfo.topmost(mounts := mounting.read_mounts(), target)) is not None:
                found = seen_mounts.identify(mounts, top, self._directories.roots)
                if found is None:
                    raise Refusal(
                        FAILED_PRECONDITION,
                        f"what is mounted at {target} is not ours: {top.kind} of {top.source}",
                        hint="Unmount it by hand",
                    )
                self._remove(found)
            for held in self._places.all():
                # A mount that nobody held any more may be on its way anew. Who does not answer
                # has none under way: it is being started.
                with contextlib.suppress(NotFoundError, WorkerUnavailable):
                    held.ask({"op": "unpublish", "target": target}, 1.0)
            with contextlib.suppress(OSError):  # files of somebody else stay
                os.rmdir(target)

    def _remove(self, found: Seen) -> None:
        held = next((h for h in self._places.all() if h.place.path == found.root), None)
        if held is None or found.kind in (CACHE, VIEW):
            _detach(found)
            return
        with held.sharing:
            try:
                held.ask({"op": "unpublish", "target": found.target})
                return
            except NotFoundError:
                _detach(found)
            if found.kind == FUSE:
                self._remove_unshared(held, found.device)

    def _remove_unshared(self, held: HeldPlace, device: str) -> None:
        """Remove the mount that pods shared when none is left."""
        left = [m.target for m in mounting.read_mounts() if m.device == device]
        if len(left) == 1 and left[0].startswith(f"{self._shared}/"):
            with contextlib.suppress(NotFoundError):
                held.ask({"op": "unpublish", "target": left[0]})
            with contextlib.suppress(OSError):
                os.rmdir(left[0])

    def sweep(self) -> None:
        """Remove shared mounts that no pod shows: a crash came between mount and bind."""
        for held in self._places.all():
            with contextlib.suppress(OSError), held.sharing:
                for mount in held.mounts():
                    self._remove_unshared(held, str(mount["device"]))

    # --- turns ---

    @contextlib.contextmanager
    def _turn(self, target: str, patience: Patience | None) -> Iterator[None]:
        with self._lock:
            if target in self._busy:
                raise Refusal(ABORTED, f"another call for {target} is under way")
            self._busy[target] = patience
        try:
            yield
        finally:
            with self._lock:
                del self._busy[target]

    def _call_off(self, target: str) -> None:
        """Nobody wants what is being published at `target`."""
        deadline = time.monotonic() + CANCEL_SECONDS
        while time.monotonic() < deadline:
            with self._lock:
                if target not in self._busy:
                    return
                patience = self._busy[target]
            if patience is not None:
                patience.cancelled.set()
            time.sleep(POLL_SECONDS)

    @contextlib.contextmanager
    def _place_in_queue(self, wish: DatasetWish) -> Iterator[None]:
        """So that one Dataset's pods do not take all threads there are."""
        key = wish.namespace, wish.name
        with self._lock:
            if self._waiting.get(key, 0) >= WAITING_MAX:
                raise Refusal(
                    UNAVAILABLE,
                    f"{WAITING_MAX} other volumes of {wish.namespace}/{wish.name} wait for it",
                )
            self._waiting[key] = self._waiting.get(key, 0) + 1
        try:
            yield
        finally:
            with self._lock:
                self._waiting[key] -= 1
                if not self._waiting[key]:
                    del self._waiting[key]


def resolve(target: str, kubelet_dir: str) -> str:
    """`target` as mountinfo names it. Raises UserError when it is not below the kubelet's."""
    found = mounting.resolve(target)
    if not found.startswith(f"{kubelet_dir}/") or "\0" in target:
        raise UserError(
            f"{target} is not below the kubelet's directory {kubelet_dir}",
            hint="Set node.kubeletDir of the chart to the kubelet's --root-dir",
        )
    return found


def _detach(found: Seen) -> None:
    """Unmount at once; end the connection of a FUSE mount when it was the last."""
    abort = mounting.Abort(found.device) if found.kind == FUSE else None
    try:
        mounting.detach(found.target)
    finally:
        if abort is not None:
            left = {mounted.device for mounted in mounting.read_mounts()}
            abort.finish(last=found.device not in left)


def _not_ready(wish: DatasetWish, health: dict[str, object]) -> WorkerUnavailable:
    conditions = health.get("conditions")
    told = [
        str(condition.get("message"))
        for condition in (conditions if isinstance(conditions, list) else [])
        if isinstance(condition, dict) and condition.get("status") != "True"
    ]
    why = "; ".join(filter(None, told)) or "it lists its origin"
    return WorkerUnavailable(
        f"the Dataset {wish.namespace}/{wish.name} is not ready on this node "
        f"({health.get('phase')}): {why}"
    )
