"""What mount processes ask: one connection for each lane of a mount, answered in order."""

from __future__ import annotations

import errno
import os

from cache_worker.holder import backing
from cacheop.api import mount_modes
from cacheop.api.errors import ProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cache_worker.holder.connection import Connection
    from cache_worker.holder.keeper import Held, Keeper

LANES_MAX = 1024
NODES_END = 1 << 32
WHY_MAX_CHARACTERS = 500


class Lanes:
    """Owned by the loop's thread."""

    def __init__(self, keeper: Keeper, drop: Callable[[Connection], None]) -> None:
        self._keeper = keeper
        self._drop = drop
        self._serving: dict[tuple[str, int], Connection] = {}

    def serving(self, mount_id: str) -> list[int]:
        """Lanes of that mount that a process serves."""
        return sorted(lane for served, lane in self._serving if served == mount_id)

    def left(self, connection: Connection) -> None:
        """The process died, or a successor came."""
        key = connection.mount_id, connection.lane
        if self._serving.get(key) is connection:
            del self._serving[key]

    def end(self, mount_id: str) -> None:
        """The mount is no more."""
        for connection in [c for (served, _), c in self._serving.items() if served == mount_id]:
            self._drop(connection)

    def serve(self, connection: Connection, message: dict[str, object]) -> dict[str, object]:
        """`connection` speaks for a lane from now on; a predecessor's is closed unread."""
        mount_id, lane = message.get("id"), message.get("lane")
        number = _number(lane, LANES_MAX)
        if connection.mount_id or not isinstance(mount_id, str) or number is None:
            raise ProtocolError(f"a bad serve: {str(message)[:200]}")
        held = self._keeper.held.get(mount_id)
        if held is None or held.mount.mode == mount_modes.NATIVE:
            return _failed(errno.ENOENT, f"no FUSE mount {mount_id}")
        if held.kept is None:
            return _failed(errno.EAGAIN, f"the fds of {mount_id} have not come back yet")
        connection.mount_id, connection.lane = mount_id, number
        before = self._serving.get((mount_id, connection.lane))
        if before is not None:
            self._drop(before)
        self._serving[mount_id, connection.lane] = connection
        return {"ok": True}

    def ask(self, connection: Connection, message: dict[str, object]) -> dict[str, object]:
        """Answer `backing`, `close` or `mode`. Raises ProtocolError."""
        held = self._keeper.held.get(connection.mount_id)
        if held is None or held.kept is None or held.kept.ids is None:
            raise ProtocolError("a request of nobody who serves a mount")
        if message["op"] == "mode":
            return self._change(held, message)
        node, path = message.get("node"), message.get("path", "")
        number = _number(node, NODES_END)
        if number is None or not isinstance(path, str):
            raise ProtocolError(f"a bad {message['op']}: {str(message)[:200]}")
        try:
            if not held.kept.ids.has(number):
                raise OSError(errno.EINVAL, "no such node")
            if message["op"] == "close":
                held.kept.ids.unregister(number)
                return {"node": number, "backing": 0}
            found = held.kept.ids.get(number) or self._register(held, number, path)
            return {"node": number, "backing": found}
        except OSError as error:
            what = f"{path}: {error.strerror}" if path else str(error.strerror)
            return {"node": number, **_failed(error.errno or errno.EIO, what)}

    def _register(self, held: Held, node: int, path: str) -> int:
        assert held.kept is not None, "looked at by the caller"
        assert held.kept.ids is not None, "looked at by the caller"
        place = self._keeper.place
        fd = backing.open_file(place.fd, place.owner, held.mount.version, path)
        try:
            return held.kept.ids.register(node, fd)
        finally:
            os.close(fd)

    def _change(self, held: Held, message: dict[str, object]) -> dict[str, object]:
        mode, why = message.get("mode"), message.get("why")
        if mode != mount_modes.FUSE or not isinstance(why, str):
            return _failed(errno.EINVAL, "a mount can only fall back to mode Fuse")
        if held.mount.mode != mode:
            self._keeper.change(held.mount, mount_modes.FUSE, why[:WHY_MAX_CHARACTERS])
        return {"ok": True}


def _number(value: object, end: int) -> int | None:
    """`value` if it is a number below `end`."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and isinstance(value, int) and 0 <= value < end else None


def _failed(code: int, message: str) -> dict[str, object]:
    return {"errno": code, "message": message}
