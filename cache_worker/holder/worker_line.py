"""What the holder asks the worker of its Dataset, over worker.sock: one question a connection."""

from __future__ import annotations

import os
import socket
import stat
import time

from cache_worker.holder import syscalls
from cacheop.api import names
from cacheop.api.errors import CacheopError, WorkerUnavailable, from_wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

RECEIVE_BYTES = 65536


def ask(
    root: int,
    request: dict[str, object],
    deadline: float,
    *,
    line: Callable[[socket.socket | None], None] = lambda _: None,
    told: Callable[[dict[str, object]], None] = lambda _: None,
) -> dict[str, object]:
    """The answer of the worker whose cache directory is the fd `root`, by `deadline` (monotonic).

    `line` gets the socket while it is in use, for who wants to break off; `told` what comes before
    the answer. Raises WorkerUnavailable, or what the worker answers.
    """
    from cacheop.api import wire  # it costs a megabyte, which an idle holder need not have

    with socket.socket(socket.AF_UNIX) as sock:
        _limit(sock, deadline)
        _connect(sock, root)
        line(sock)
        try:
            sock.sendall(wire.encode(wire.Frame(wire.REQUEST, 1, request)))
            decoder = wire.Decoder()
            while True:
                _limit(sock, deadline)
                data = sock.recv(RECEIVE_BYTES)
                if not data:
                    break
                for frame in decoder.feed(data):
                    if frame.kind == wire.ERROR:
                        raise from_wire(frame.meta)
                    if frame.kind == wire.RESPONSE:
                        return frame.meta
                    told(frame.meta)
        except TimeoutError as error:
            raise WorkerUnavailable("the worker did not answer in time") from error
        except ConnectionError as error:
            raise WorkerUnavailable("the worker ended before it answered") from error
        finally:
            line(None)
    raise WorkerUnavailable("the worker ended before it answered")


def _limit(sock: socket.socket, deadline: float) -> None:
    if deadline != float("inf"):
        sock.settimeout(max(0.1, deadline - time.monotonic()))


def _connect(sock: socket.socket, root: int) -> None:
    """Connect through the socket itself, whatever its path leads to a moment later."""
    try:
        found = syscalls.openat2(root, names.WORKER_SOCKET, os.O_PATH | os.O_NOFOLLOW)
        try:
            if not stat.S_ISSOCK(os.fstat(found).st_mode):
                raise WorkerUnavailable(f"{names.WORKER_SOCKET} is no socket")
            sock.connect(f"/proc/self/fd/{found}")
        finally:
            os.close(found)
    except CacheopError:
        raise
    except OSError as error:
        raise WorkerUnavailable(
            f"the worker does not answer at {names.WORKER_SOCKET}: {error.strerror or error}",
            hint="It is started by the supervisor; its log says more",
        ) from error
