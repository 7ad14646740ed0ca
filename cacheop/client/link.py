"""The client's line to one worker: a few connections, each bound to one version.

Every connection binds the version before its first use, so as long as one is open the version stays
in use, and a worker that was started again learns of it from the first that comes back.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cacheop.api import wire
from cacheop.api.errors import (
    CacheopError,
    NotFoundError,
    ProtocolError,
    WorkerUnavailable,
    from_wire,
)
from cacheop.api.names import ENV_READER
from cacheop.client.connection import Connection, Dropped

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ANSWER_SECONDS = 30.0
IDLE_CONNECTIONS = 16
IN_FLIGHT = 32
"""Reads under way on one connection; below what the worker takes at a time."""
RETRY_SECONDS = 0.1
TOUCHED_ROWS = 32_768
"""Told at once."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long we wait, in seconds."""

    attach_seconds: float = 5.0
    """For a worker that is being started or still lists."""
    reconnect_seconds: float = 20.0
    """For one that went away, before a read fails."""
    away_seconds: float = 20.0
    """For one that was away already at the last try."""
    read_seconds: float = 60.0
    """For bytes. The worker tries the origin for about 20 s; other fills may lie before ours."""
    touched_seconds: float = 1.0
    """Between two tellings of what was read without asking."""


QUICK = Patience(reconnect_seconds=1.0, away_seconds=0.0)
"""Where the origin can be read instead."""


class WorkerLink:
    """Owns its connections. Any thread may call; a connection is one caller's while it is out.

    `_lock` guards `_idle` and `_all` only and is never held over a wait.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[], Connection],
        version: str,
        patience: Patience,
    ) -> None:
        self.name = name
        self.patience = patience
        self._away = False  # whether the last try to connect was given up
        self.version = version
        self.bound: dict[str, Any] = {}
        self._connect = connect
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()
        self._touched: dict[int, int] = {}
        self._touched_sent = time.monotonic()

    def open(self, seconds: float) -> dict[str, Any]:
        """Bind within `seconds`; the worker's answer. Raises WorkerUnavailable or what it says."""
        self._give(self._take(time.monotonic() + seconds))
        return self.bound

    def call(
        self,
        op: str,
        meta: dict[str, Any],
        seconds: float = ANSWER_SECONDS,
        payload: bytes = b"",
    ) -> wire.Frame:
        """One request that may be asked again. Raises what it answers, WorkerUnavailable."""
        reconnect_until = self._reconnect_until()
        while True:
            connection = self._take(reconnect_until)
            try:
                frame = connection.call(op, meta, time.monotonic() + seconds, payload)
            except Dropped:
                self._forget(connection)
                continue
            except TimeoutError as error:
                self._forget(connection)
                raise self._silent(op, seconds) from error
            except CacheopError as error:
                self._settle(connection, error)
                raise
            except BaseException:  # an interrupted wait leaves half a frame in the socket
                self._forget(connection)
                raise
            self._give(connection)
            return frame

    def read(self, meta: dict[str, Any]) -> wire.Frame:
        """A `read` of one span."""
        return self.call("read", self.question(meta), self.patience.read_seconds)

    def question(self, meta: dict[str, Any]) -> dict[str, Any]:
        """The fields of a `read`; with it goes what was read before, so that the order is kept."""
        if self._touched:
            touched, self._touched = self._touched, {}
            meta = {**meta, "touched": _rows(touched)}
        return {"version": self.version, **meta}

    def read_many(self, metas: Sequence[dict[str, Any]]) -> list[wire.Frame | CacheopError]:
        """Many `read`s at the same time on one connection; answers in the order of `metas`.

        Errors are among them, also that no worker is there.
        """
        answers: list[wire.Frame | CacheopError] = []
        started: list[Ahead] = []
        try:
            for at, meta in enumerate(metas):
                while len(started) - at < IN_FLIGHT and len(started) < len(metas):
                    first = started[0] if started else None
                    started.append(self._start(metas[len(started)], first))
                try:
                    answers.append(started[at].wait())
                except (Dropped, TimeoutError):
                    answers.append(self._again(meta))
                except CacheopError as error:
                    answers.append(error)
        except WorkerUnavailable as error:  # the first one could not even be asked
            answers += [error] * (len(metas) - len(answers))
        finally:
            if started:
                started[0].end(whole=all(ahead.whole for ahead in started))
        return answers

    def read_ahead(self, meta: dict[str, Any]) -> Ahead | None:
        """Ask now, `wait` later. None when no connection stands: then it is not worth it."""
        connection = self._pop_idle()
        if connection is None:
            return None
        ahead = Ahead(self, connection)
        ahead.send(meta)
        return ahead

    def touch(self, row: int) -> None:
        """Count a read that the worker did not see. Told in batches, on a later call."""
        touched = self._touched
        touched[row] = touched.get(row, 0) + 1
        now = time.monotonic()
        if now - self._touched_sent > self.patience.touched_seconds:
            self._touched_sent = now
            self.tell_touched()

    def tell_touched(self) -> None:
        """Tell what was counted, if a connection is free. Never waits; losing it is harmless."""
        touched, self._touched = self._touched, {}
        connection = self._pop_idle()
        if connection is None or not touched:
            return
        try:
            rows = _rows(touched)
            connection.send_and_forget("touched", {"version": self.version, "rows": rows})
        except (Dropped, TimeoutError):
            self._forget(connection)
        else:
            self._give(connection)

    def close(self) -> None:
        """Hang up; a later call connects again. Also what a forked child does with its copies."""
        with self._lock:
            connections, self._all, self._idle = self._all, set(), []
        for connection in connections:
            connection.close()

    def after_fork(self) -> None:
        """In the child: the sockets are the parent's, and another thread may have held the lock."""
        self._lock = threading.Lock()
        self._touched = {}
        self.close()

    def _start(self, meta: dict[str, Any], first: Ahead | None) -> Ahead:
        connection = first.connection if first else self._take(self._reconnect_until())
        ahead = Ahead(self, connection)
        ahead.send(meta)
        return ahead

    def _again(self, meta: dict[str, Any]) -> wire.Frame | CacheopError:
        try:
            return self.read(meta)
        except CacheopError as error:
            return error

    def _take(self, deadline: float) -> Connection:
        """An idle connection or a new, bound one."""
        connection = self._pop_idle()
        while connection is None:
            try:
                connection = self._connect()
                with self._lock:
                    self._all.add(connection)
                self._bind(connection)
            except (OSError, TimeoutError) as error:
                if connection is not None:
                    self._forget(connection)
                    connection = None
                transient = not isinstance(error, CacheopError) or isinstance(
                    error, WorkerUnavailable
                )
                if not transient:
                    raise
                if time.monotonic() >= deadline:
                    self._away = True
                    raise WorkerUnavailable(
                        f"no worker answers at {self.name}: {error}",
                        hint="`cacheop status` shows what runs here; `cacheop up` starts it",
                    ) from error
                time.sleep(RETRY_SECONDS)
        self._away = False
        return connection

    def _reconnect_until(self) -> float:
        patience = self.patience
        seconds = patience.away_seconds if self._away else patience.reconnect_seconds
        return time.monotonic() + seconds

    def _bind(self, connection: Connection) -> None:
        meta = {"version": self.version, "reader": _reader()}
        try:
            bound = connection.call("bind", meta, time.monotonic() + ANSWER_SECONDS).meta
        except NotFoundError as error:
            if self.version:
                raise
            # No version at all yet is a worker that still lists, not a path that is not there.
            raise WorkerUnavailable(error.message, hint=error.hint) from error
        version = bound.get("version")
        if not isinstance(version, str) or (self.version and version != self.version):
            raise ProtocolError(f"{self.name} bound version {version!r}, not {self.version!r}")
        self.version, self.bound = version, bound

    def _pop_idle(self) -> Connection | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _give(self, connection: Connection) -> None:
        with self._lock:
            if connection in self._all and len(self._idle) < IDLE_CONNECTIONS:
                self._idle.append(connection)
                return
        self._forget(connection)

    def _settle(self, connection: Connection, error: CacheopError) -> None:
        if isinstance(error, ProtocolError):
            self._forget(connection)
        else:
            self._give(connection)

    def _forget(self, connection: Connection) -> None:
        with self._lock:
            self._all.discard(connection)
        connection.close()

    def _silent(self, op: str, seconds: float) -> WorkerUnavailable:
        return WorkerUnavailable(
            f"the worker at {self.name} did not answer '{op}' within {seconds:g} s",
            hint="`cacheop status` shows whether it and the origin are well",
        )


def _reader() -> str:
    """Names the job that this process belongs to: loader processes are of their trainer's group.

    Each machine and each container numbers its process groups anew, so they are named too. A job of
    several trainers names itself.
    """
    named = os.environ.get(ENV_READER)
    if named:
        return named
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            machine = file.read(13)
        namespace = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        machine, namespace = "", 0
    return f"{machine}.{namespace:x}.{os.getpgid(0):x}"


def _rows(touched: dict[int, int]) -> dict[str, int]:
    return {str(row): times for row, times in list(touched.items())[:TOUCHED_ROWS]}


class Ahead:
    """A `read` under way. Owns `connection` until `end`, unless it shares another's."""

    def __init__(self, link: WorkerLink, connection: Connection) -> None:
        self.connection = connection
        self._link = link
        self._request_id = 0
        self.whole = True  # whether nothing of ours is left unread in the socket

    def send(self, meta: dict[str, Any]) -> None:
        """Ask. A failure shows when waited for."""
        self.whole = False
        with contextlib.suppress(Dropped, TimeoutError):
            self._request_id = self.connection.send(
                "read", self._link.question(meta), time.monotonic() + ANSWER_SECONDS
            )

    def wait(self) -> wire.Frame:
        """The answer. Raises Dropped, TimeoutError or what the worker says."""
        if not self._request_id:
            raise Dropped("could not ask")
        frame = self.connection.wait(
            self._request_id, time.monotonic() + self._link.patience.read_seconds
        )
        self.whole = True
        if frame.kind == wire.ERROR:
            raise from_wire(frame.meta)
        return frame

    def end(self, *, whole: bool | None = None) -> None:
        """Give the connection back, or close it when an answer is still to come: that cancels."""
        if self.whole if whole is None else whole:
            self._link._give(self.connection)
        else:
            self._link._forget(self.connection)
