"""Serves other nodes: the port, its connections and their limits.

Who owns what: `PeerServer` owns the listening socket, one thread that accepts, and one thread for
each connection, which owns its Stream (one fd) and Inbox (one fd). A connection is read only when
its last request was answered: who asks for more than it takes waits in its own socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import select
import socket
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cache_worker.peers.room import Room
from cache_worker.peers.serving import Serving
from cache_worker.peers.stream import Stream
from cache_worker.peers.traffic import Traffic
from cacheop.api import wire
from cacheop.api.errors import CacheopError, WorkerUnavailable, to_wire

if TYPE_CHECKING:
    from cache_worker.peers.service import Service

log = logging.getLogger(__name__)

ACCEPT_TICK_SECONDS = 0.5
"""How often connections that are overdue are looked for."""
CLOSE_SECONDS = 5.0
TELL_AGAIN_SECONDS = 60.0
TOLD_MAX = 1000


@dataclass(frozen=True, slots=True)
class Caps:
    """What others may make us do."""

    connections: int = 512
    peer_connections: int = 32
    """Of one node."""
    strangers: int = 32
    """Connections that have not authenticated; beyond, the oldest goes."""
    auth_seconds: float = 10.0
    idle_seconds: float = 120.0
    stall_seconds: float = 10.0
    """An asker that does not take its answer for so long is given up."""
    provide_seconds: float = 60.0
    answer_seconds: float = 600.0
    fill_bytes: int = 128 << 20
    """What may be read for others at the same time, for each of: asked first hand, passed on."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who we are."""

    token: str
    node: str
    zone: str


@dataclass(eq=False, slots=True)
class _Connection:
    stream: Stream
    where: str
    since: float
    node: str | None = None
    """None: a stranger."""


class PeerServer:
    """Made and closed on the loop."""

    def __init__(
        self, service: Service, token: str, node: str, zone: str = "", caps: Caps | None = None
    ) -> None:
        """`token`: the peer token; `node`, `zone`: who we are."""
        self.caps = caps or Caps()
        self.sent = Traffic()
        self._service = service
        self._me = Identity(token, node, zone)
        self._rooms = {leaf: Room(self.caps.fill_bytes) for leaf in (False, True)}
        self._lock = threading.Lock()
        self._connections: set[_Connection] = set()
        self._threads: set[threading.Thread] = set()
        self._told: dict[tuple[str, str], float] = {}
        """When a line was written about whom (host, kind of error)."""
        self._closed = False
        self._listener: socket.socket | None = None
        self._bell, self._ring = socket.socketpair()

    def listen(self, host: str, port: int) -> str:
        """Serve from now on; the address, host:port."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family, backlog=128)
        self._listener.setblocking(False)
        bound = self._listener.getsockname()
        loop = asyncio.get_running_loop()
        self._begin(threading.Thread(target=self._accept_all, args=(loop,), name="peers-accept"))
        return f"[{bound[0]}]:{bound[1]}" if ":" in bound[0] else f"{bound[0]}:{bound[1]}"

    async def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """End all connections. Every thread has ended then, or `seconds` are over."""
        with self._lock:
            self._closed = True
            for connection in self._connections:
                connection.stream.shutdown()
        for room in self._rooms.values():
            room.close()
        with contextlib.suppress(OSError):
            self._ring.send(b"x")
        deadline = time.monotonic() + seconds
        while self._threads and time.monotonic() < deadline:  # noqa: ASYNC110 - threads, not tasks
            await asyncio.sleep(0.005)
        for owned in (self._listener, self._bell, self._ring):
            if owned is not None:
                owned.close()
        await asyncio.sleep(0)  # lets what was cancelled on the loop end

    def _begin(self, thread: threading.Thread) -> None:
        thread.daemon = True
        with self._lock:
            self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError:
            with self._lock:
                self._threads.discard(thread)
            raise

    # -- the accepting thread ---------------------------------------------------------------------

    def _accept_all(self, loop: asyncio.AbstractEventLoop) -> None:
        assert self._listener is not None
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.register(self._bell, select.POLLIN)
        try:
            while not self._closed:
                poll.poll(ACCEPT_TICK_SECONDS * 1000)
                self._drop_overdue()
                try:
                    sock, where = self._listener.accept()
                except BlockingIOError:
                    continue
                except OSError as error:  # EMFILE and such: goes by
                    log.warning("a peer's connection was not accepted: %s", error)
                    self._bell.settimeout(ACCEPT_TICK_SECONDS)
                    with contextlib.suppress(TimeoutError):
                        self._bell.recv(1, socket.MSG_PEEK)
                    continue
                self._accepted(loop, sock, f"{where[0]}:{where[1]}")
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())

    def _drop_overdue(self) -> None:
        """End strangers that are slow to say who they are, and the oldest where they are many."""
        with self._lock:
            strangers = [c for c in self._connections if c.node is None]
            strangers.sort(key=lambda c: c.since)
            overdue = time.monotonic() - self.caps.auth_seconds
            surplus = len(strangers) - self.caps.strangers
            for place, connection in enumerate(strangers):
                if place < surplus or connection.since < overdue:
                    connection.stream.shutdown()

    def _accepted(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, where: str) -> None:
        try:
            stream = Stream(sock, self.caps.stall_seconds)
        except OSError:
            sock.close()  # it went again
            return
        connection = _Connection(stream, where, time.monotonic())
        with self._lock:
            is_full = len(self._connections) >= self.caps.connections
            if not is_full and not self._closed:
                self._connections.add(connection)
        if is_full or self._closed:
            error = WorkerUnavailable(f"node {self._me.node} serves {len(self._connections)} peers")
            log.warning("peers: %s is refused: %s", where, error)
            with contextlib.suppress(OSError):
                stream.send_frame(wire.Frame(wire.ERROR, 0, to_wire(error)))
            stream.close()
            return
        thread = threading.Thread(target=self._serve, args=(loop, connection), name=f"peer {where}")
        try:
            self._begin(thread)
        except RuntimeError as error:  # no more threads
            log.warning("peers: %s is refused: %s", where, error)
            self._forget(connection)

    # -- a connection's thread --------------------------------------------------------------------

    def _serve(self, loop: asyncio.AbstractEventLoop, connection: _Connection) -> None:
        serving: Serving | None = None
        where = connection.where
        try:
            serving = Serving(
                connection.stream, self._service, self._me, self.caps, loop, self.sent
            )
            serving.authenticate(where, lambda node: self._admit(connection, node))
            serving.serve(self._rooms)
        except CacheopError as error:
            level = logging.WARNING if self._is_news(where, error) else logging.DEBUG
            log.log(
                level, "peers: connection from %s (%s) ended: %s", where, connection.node, error
            )
        except TimeoutError as error:
            log.info("peers: connection from %s (%s) ended: %s", where, connection.node, error)
        except OSError as error:
            log.debug("peers: connection from %s (%s) ended: %s", where, connection.node, error)
        except Exception:  # one connection's trouble is not the others'
            log.exception("peers: connection from %s (%s) failed", where, connection.node)
        finally:
            if serving is not None:
                serving.close()
            self._forget(connection)
            with self._lock:
                self._threads.discard(threading.current_thread())

    def _is_news(self, where: str, error: CacheopError) -> bool:
        """Whether it is worth a line: who is refused comes again every second."""
        about, now = (where.rpartition(":")[0], type(error).__name__), time.monotonic()
        with self._lock:
            last = self._told.get(about, -TELL_AGAIN_SECONDS)
            if now - last < TELL_AGAIN_SECONDS:
                return False
            if len(self._told) >= TOLD_MAX:
                self._told.clear()
            self._told[about] = now
            return True

    def _admit(self, connection: _Connection, node: str) -> None:
        with self._lock:
            same = sum(c.node == node for c in self._connections)
            if same < self.caps.peer_connections:
                connection.node = node
                return
        raise WorkerUnavailable(f"node {node} has {same} connections to {self._me.node} already")

    def _forget(self, connection: _Connection) -> None:
        with self._lock:
            self._connections.discard(connection)
        connection.stream.close()
