"""Tells a worker what one rank will read and how far it is: a thread, so that nobody waits.

Whatever goes wrong here costs a plan's benefit and nothing else: it is logged once.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from dataclasses import dataclass
from os import register_at_fork
from typing import TYPE_CHECKING, Any

from cacheop.api.errors import CacheopError, WorkerUnavailable
from cacheop.api.plan import SEGMENT_READS, Reads

if TYPE_CHECKING:
    from collections.abc import Callable

    from cacheop.client.link import WorkerLink

log = logging.getLogger("cacheop")

PAUSE_SECONDS = 0.05
"""Between two tellings of how far it is."""
AWAY_SECONDS = 1.0
CALL_SECONDS = 10.0


@dataclass(slots=True)
class _Epoch:
    start: int
    make: Callable[[], Reads]
    reads: Reads | None = None
    sent: int = 0


class Teller:
    """Owns its thread, which ends with `close`. `_lock` guards what both sides touch."""

    def __init__(self, connect: Callable[[], WorkerLink], rank: int) -> None:
        """`connect` may raise CacheopError; it is called on the thread."""
        self.state = "new"
        """What the worker said last: kept, wrong, off, full; or away."""
        self._connect, self._rank = connect, rank
        self._link: WorkerLink | None = None
        self._epochs: dict[int, _Epoch] = {}
        self._at: tuple[int, int] | None = None
        self._told: tuple[int, int] | None = None
        self._lock = threading.Lock()
        self._news = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="cacheop-plan", daemon=True)
        _tellers.add(self)
        self._thread.start()

    def publish(self, number: int, start: int, make: Callable[[], Reads]) -> None:
        """The reads of an epoch from `start` on, instead of what was said of it and later ones."""
        with self._lock:
            self._epochs = {n: e for n, e in self._epochs.items() if n < number}
            self._epochs[number] = _Epoch(start, make)
        self._news.set()

    def reached(self, number: int, place: int) -> None:
        """So many reads of the epoch were given. Costs next to nothing."""
        self._at = number, place
        if not self._news.is_set():
            self._news.set()

    def close(self) -> None:
        """The plan is over."""
        self._closed = True
        self._news.set()

    def wait_told(self, seconds: float) -> bool:
        """Wait until all that was published is told; whether it is."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self._thread.is_alive():
            with self._lock:
                epochs = list(self._epochs.values())
            if all(e.reads is not None and e.sent >= len(e.reads) for e in epochs):
                return True
            time.sleep(0.01)
        return False

    def after_fork(self) -> None:
        """In the child, where the thread is not: the parent's socket is let go of."""
        self._closed = True
        if self._link is not None:
            self._link.after_fork()

    # -- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._closed:
                self._news.wait()
                self._news.clear()
                while not self._closed and self._tell():
                    pass
                time.sleep(PAUSE_SECONDS)
        except CacheopError as error:
            self.state = "away"
            log.warning("cacheop: training goes on without its plan: %s", error)
        except Exception:
            self.state = "away"
            log.exception("cacheop: training goes on without its plan")
        finally:
            if self._link is not None:
                self._link.close()

    def _tell(self) -> bool:
        """One piece of news; whether there may be more."""
        try:
            if self._link is None:
                self._link = self._connect()
            return self._tell_place() or self._tell_reads()
        except WorkerUnavailable as error:
            if self.state != "away":
                log.warning("cacheop: no worker hears of the plan for now: %s", error)
            self.state = "away"
            time.sleep(AWAY_SECONDS)
            return True

    def _tell_place(self) -> bool:
        at = self._at
        if at is None or at == self._told:
            return False
        with self._lock:
            epoch = self._epochs.get(at[0])
            self._epochs = {n: e for n, e in self._epochs.items() if n >= at[0]}
        if epoch is None or not epoch.sent:
            return False  # first the order itself
        self._told = at
        self._ask({"reached": at})
        return False

    def _tell_reads(self) -> bool:
        with self._lock:
            left = [(n, e) for n, e in self._epochs.items() if e.reads is None or not _done(e)]
        if not left:
            return False
        number, epoch = left[0]
        if epoch.reads is None:
            epoch.reads = epoch.make()
        first, last = epoch.sent, min(len(epoch.reads), epoch.sent + SEGMENT_READS)
        kind, payload = epoch.reads.pack(first, last)
        meta = {"epoch": number, "at": epoch.start + first, "kind": kind, "begin": first == 0}
        if self._ask(meta, payload):
            epoch.sent = max(1, last)
        return True

    def _ask(self, meta: dict[str, Any], payload: bytes = b"") -> bool:
        """Whether it was taken; what the worker does not know any more is told again."""
        assert self._link is not None
        meta = {"version": self._link.version, "rank": self._rank, **meta}
        state = str(self._link.call("plan", meta, CALL_SECONDS, payload).meta.get("state"))
        if state == "unknown":
            self._told = None
            with self._lock:
                for epoch in self._epochs.values():
                    epoch.sent = 0
            self._news.set()
        elif state in ("wrong", "off"):
            log.warning("cacheop: the worker does not follow the plan: %s", WHY[state])
            self._closed = True
        elif state == "full":
            with self._lock:  # it has no room for the rest
                self._epochs = {n: e for n, e in self._epochs.items() if e.sent}
                for epoch in self._epochs.values():
                    epoch.sent = max(1, len(epoch.reads or ()))
        self.state = state
        return state == "kept"


WHY = {
    "wrong": "what it fetched ahead was not read, so the sampler says something else than is read",
    "off": "spec.prefetch.mode is Off",
}


def _done(epoch: _Epoch) -> bool:
    assert epoch.reads is not None
    return epoch.sent >= max(1, len(epoch.reads))


_tellers: weakref.WeakSet[Teller] = weakref.WeakSet()


def _forked() -> None:
    for teller in list(_tellers):
        teller.after_fork()


register_at_fork(after_in_child=_forked)
