"""The holder of one Dataset. `python -m cache_worker hold CONFIG`, as root, is a process with one;
the node plugin (cache_worker/csi/) has one in a thread for each Dataset of the node.

One thread polls and never waits; a mount that is on its way has a thread of its own. It may be
killed at any time: the mounts stay, their fds are the supervisor's too.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import sys
import time

from cache_worker.holder import messages, mountinfo, mounting, records, syscalls
from cache_worker.holder.commands import Commands
from cache_worker.holder.connection import Connection
from cache_worker.holder.keeper import Keeper
from cache_worker.holder.lanes import Lanes
from cache_worker.holder.publishing import Place
from cache_worker.holder.wanted import Wanted, read_wanted
from cacheop.api import names
from cacheop.api.errors import CacheopError, ProtocolError, StoreError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

LOCK_SECONDS = 10.0
WAIT_SECONDS = 0.05
PACKETS_AT_ONCE = 64  # of one connection, before others have their turn
BACKLOG = 128


class Server:
    """The poll loop. `serve` is one thread's; `stop` and `connect` may be called from any."""

    def __init__(self, place: Place, wanted: list[Wanted], report: Callable[[str], None]) -> None:
        """Raises StoreError while another holder keeps the mounts of `place`, OSError."""
        self._place = place
        self._report = report
        self._directory = records.open_directory(place.fd)
        try:
            lock(self._directory)
        except StoreError:
            os.close(self._directory)
            raise
        self._poll = select.poll()
        self._connections: dict[int, Connection] = {}
        self._arriving: list[socket.socket] = []
        self._woken, self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._ending = False
        self._keeper = Keeper(place, self._directory, report, self._drop)
        self._lanes = Lanes(self._keeper, self._drop)
        self._commands = Commands(self._keeper, self._lanes, wanted, self._wake_up, report)

    def serve(self) -> None:
        """Until `stop`; mounts that are there stay. Raises UserError: CONFIG's cannot be made."""
        self._keeper.recall()
        self._commands.begin()
        with listen(self._place) as listener, open(mountinfo.PATH, "rb") as mounts:
            self._poll.register(mounts, select.POLLPRI)  # tells that something was (un)mounted
            self._poll.register(self._woken, select.POLLIN)
            self._poll.register(listener, select.POLLIN)
            while not self._ending:
                for fd, event in self._poll.poll():
                    if fd == listener.fileno():
                        self._accept(listener)
                    elif fd == self._woken:
                        self._look_around()
                    elif fd == mounts.fileno():
                        self._commands.look()
                    elif fd in self._connections:
                        self._serve(self._connections[fd], event)
        self._commands.end()

    def stop(self) -> None:
        """End `serve`."""
        self._ending = True
        self._wake_up()

    def connect(self) -> socket.socket:
        """A line of this process to the loop, as good as one of root's to holder.sock."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._arriving.append(ours)
        self._wake_up()
        return theirs

    def close(self) -> None:
        """After `serve`: let go of all fds; the supervisor has those of the mounts."""
        for connection in list(self._connections.values()):
            self._drop(connection)
        for sock in self._arriving:
            sock.close()
        self._keeper.close()
        for fd in (self._directory, self._woken, self._wake):
            os.close(fd)

    def _wake_up(self) -> None:
        """From another thread, or in a signal handler."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake, b"\0")

    def _look_around(self) -> None:
        """Somebody woke us up: a publication ended, or somebody connects."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._woken, 4096)
        self._commands.finish()
        while self._arriving:
            self._welcome(self._arriving.pop(0))

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except OSError:
            return  # it left already
        self._welcome(sock)

    def _welcome(self, sock: socket.socket) -> None:
        connection = Connection(sock)
        if connection.uid not in (0, self._place.owner):
            connection.close()
            return
        self._connections[sock.fileno()] = connection
        self._poll.register(sock, select.POLLIN)

    def _serve(self, connection: Connection, event: int) -> None:
        if connection.has_more:
            if event & (select.POLLHUP | select.POLLERR):
                self._drop(connection)
                return
            connection.flush()
        try:
            for _ in range(PACKETS_AT_ONCE):
                if connection.is_behind or not connection.is_open:
                    break
                received = messages.receive(connection.sock)
                if received is None:
                    self._drop(connection)
                    break
                self._dispatch(connection, *received)
        except BlockingIOError:
            pass
        except ProtocolError as error:
            self._report(f"a connection is closed: {error}")
            self._drop(connection)
        except OSError:
            self._drop(connection)
        if connection.is_open:
            wanted = 0 if connection.is_behind else select.POLLIN
            wanted |= select.POLLOUT if connection.has_more else 0
            self._poll.modify(connection.sock, wanted)

    def _dispatch(self, connection: Connection, message: dict[str, object], fds: list[int]) -> None:
        """Do what `message` says. Raises ProtocolError, after which the connection is dropped."""
        op, keeper = message.get("op"), self._keeper
        if op == "held" and connection is keeper.supervisor and "mount" in message:
            keeper.take_back(message["mount"], fds)
            return
        if fds:
            messages.close_all(fds)
            raise ProtocolError(f"{str(op)[:40]} with fds, which only a supervisor gives back")
        if op in ("backing", "close", "mode"):
            connection.send(self._lanes.ask(connection, message))
        elif op == "serve":
            connection.send(self._lanes.serve(connection, message))
        elif op == "hold" and not connection.mount_id:
            keeper.hold(connection)
        elif op == "held" and connection is keeper.supervisor:
            keeper.acknowledge(str(message.get("id")))
        elif op == "held_all" and connection is keeper.supervisor:
            self._commands.publish_again(keeper.supervisor_told_all())
        elif op in ("report", "publish", "unpublish"):
            self._commands.obey(connection, message)
        else:
            raise ProtocolError(f"unknown or not for this connection: {str(op)[:40]}")

    def _drop(self, connection: Connection) -> None:
        if not connection.is_open:
            return
        self._poll.unregister(connection.sock)
        del self._connections[connection.sock.fileno()]
        connection.close()
        self._lanes.left(connection)
        self._commands.left(connection)
        if connection is self._keeper.supervisor:
            self._keeper.supervisor_left()


def listen(place: Place) -> socket.socket:
    """holder.sock, made anew; only the owner of the root may connect. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(names.HOLDER_SOCKET, dir_fd=place.fd)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.setblocking(False)
    os.fchmod(listener.fileno(), 0o600)  # what bind makes has this mode
    # As the owner from the beginning: a chown could be led astray. bind follows no symlink.
    with syscalls.as_user(place.owner, os.fstat(place.fd).st_gid):
        listener.bind(f"/proc/self/fd/{place.fd}/{names.HOLDER_SOCKET}")
    listener.listen(BACKLOG)
    return listener


def lock(directory: int) -> None:
    """Only one holder for a Dataset: another one may be ending just now. Raises StoreError."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise StoreError(
                    "another holder keeps the mounts of this cache directory",
                    hint="Stop it, or use another --cache",
                ) from error
            time.sleep(WAIT_SECONDS)


def open_place(root: str) -> Place:
    """The cache directory, as soon as the worker has made it."""
    while True:
        try:
            return Place(root)
        except FileNotFoundError:
            time.sleep(WAIT_SECONDS)


def report(line: str) -> None:
    """One line for the log, on stderr. A log on a failing disk must end nobody who serves."""
    try:
        sys.stderr.write(f"cacheop holder: {line}\n")
        sys.stderr.flush()
    except OSError:
        return


def main(arguments: list[str]) -> int:
    """Exit code 0 after a signal, 2 for bad input, 1 when the holder cannot work."""
    if len(arguments) != 1:
        report("usage: python -m cache_worker hold CONFIG")
        return 2
    os.umask(0o022)
    try:
        root, wanted = read_wanted(arguments[0])
        mounting.check_possible()
        server = Server(open_place(root), wanted, report)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: server.stop())
        server.serve()
    except CacheopError as error:
        report(str(error))
        return error.exit_code
    except OSError as error:
        report(f"cannot keep mounts: {error}")
        return 1
    sys.stderr.flush()
    os._exit(0)  # a mount on its way has a thread, which is not waited for
