"""Asks other nodes for chunks. The loop asks; threads talk.

Who owns what: `Peers` owns the lanes and all threads. A lane is what waits for one peer with one
purpose, and the few threads that serve it; a thread is started when something waits, owns at most
one Link (and so one fd) and ends when it had nothing to do for a while. One lock guards all of it
and is held for list work only. Requests that may make the peer ask somebody else, and those that
never do, have lanes and room of their own: else nodes could wait for each other in a circle.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
from typing import TYPE_CHECKING, Any

from cache_worker.peers.buffers import Buffers
from cache_worker.peers.errors import PeerAbsent, PeerBadBytes, PeerError, PeerUnavailable
from cache_worker.peers.lanes import Job, Key, Lane, Limits, Seat
from cache_worker.peers.link import AnsweredError, Callee, Caller, Fetched, Link
from cache_worker.peers.mailbox import Mailbox
from cache_worker.peers.messages import Get, Wanted
from cache_worker.peers.traffic import Traffic
from cache_worker.peers.waiting import SMALL_BYTES, Line
from cacheop.api import wire
from cacheop.api.errors import CacheopError, NotFoundError, ProtocolError

if TYPE_CHECKING:
    from cache_worker.cluster.view import Member

log = logging.getLogger(__name__)

FETCH_SECONDS = 30.0
CLOSE_SECONDS = 5.0
HEADROOM_SECONDS = 5.0
"""A thread waits so much longer than who asked: those end it themselves when they gave up."""


class Peers:
    """All that this node asks of others. Made and closed on the loop."""

    def __init__(self, token: str, node: str, zone: str = "", limits: Limits | None = None) -> None:
        """`token`: the peer token; `node`, `zone`: who we are."""
        self.limits = limits or Limits()
        self.received = Traffic()
        self._caller = Caller(token, node, zone, self.limits.stall_seconds)
        self._buffers = Buffers(self.limits.flight_bytes)
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._lanes: dict[Key, Lane] = {}
        self._threads: set[threading.Thread] = set()
        self._on_wire: dict[Link, set[Job]] = {}
        """What each connection that is in use is asked for, as far as somebody still waits."""
        self._flight_bytes = {False: 0, True: 0}
        self._short_of_room: set[Lane] = set()
        self._mail: Mailbox | None = None
        self._closed = False

    # -- on the loop ------------------------------------------------------------------------------

    async def fetch(
        self,
        member: Member,
        version: str,
        row: int,
        chunk: int,
        length: int,
        *,
        only_if_present: bool = False,
        hops: int = 1,
        without: tuple[str, ...] = (),
        seconds: float = FETCH_SECONDS,
    ) -> Fetched:
        """A chunk, verified. A PeerError, or the CacheopError that the peer sent for the chunk."""
        callee = Callee(member.node, member.address)
        key = Key(callee, "get", version, only_if_present, hops, without)
        job = self._job(length, seconds)
        job.wanted = Wanted(row, chunk, length)
        try:
            found: Fetched = await self._result(key, job, seconds, member.zone)
        except NotFoundError as error:
            self.received.ended("absent" if only_if_present else "error")
            if only_if_present:
                raise PeerAbsent(f"{callee} has it not: {error.message}") from error
            raise
        except CacheopError as error:
            self.received.ended(_result_of(error))
            raise
        except asyncio.CancelledError:
            self.received.ended("cancelled")
            raise
        self.received.ended("ok")
        return found

    async def ask(
        self, member: Member, op: str, meta: dict[str, Any], seconds: float
    ) -> tuple[dict[str, Any], memoryview]:
        """Any other operation. `meta["length"]`, if there, is the most payload it may bring."""
        key = Key(Callee(member.node, member.address), op)
        job = self._job(int(meta.get("length", 0)), seconds)
        job.meta = meta
        answer: tuple[dict[str, Any], memoryview] = await self._result(
            key, job, seconds, member.zone
        )
        return answer

    async def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """End all requests and connections. Every thread has ended then, or `seconds` are over."""
        with self._lock:
            self._closed = True
            waiting = [job for lane in self._lanes.values() for job in lane.line.take_all()]
            for lane in self._lanes.values():
                while lane.idle:
                    self._call(lane)
            for link in self._on_wire:
                link.abandon()
        for job in waiting:
            self._deliver(job, PeerUnavailable("this node stops asking others"))
        deadline = time.monotonic() + seconds
        while self._threads and time.monotonic() < deadline:  # noqa: ASYNC110 - threads, not tasks
            await asyncio.sleep(0.005)

    def _job(self, length: int, seconds: float) -> Job:
        loop = asyncio.get_running_loop()
        if self._mail is None:
            self._mail = Mailbox(loop)
        deadline = time.monotonic() + seconds
        return Job(next(self._numbers), length, deadline, loop.create_future())

    async def _result(self, key: Key, job: Job, seconds: float, zone: str) -> Any:
        loop = asyncio.get_running_loop()
        self._submit(key, job, zone)
        timer = loop.call_later(seconds, _expire, job.future, key, seconds)
        try:
            return await job.future
        finally:
            timer.cancel()
            self._drop(job)

    def _submit(self, key: Key, job: Job, zone: str) -> None:
        with self._lock:
            if self._closed:
                raise PeerUnavailable("this node stops asking others")
            lane = self._lanes.get(key)
            if lane is None:
                lane = self._lanes[key] = self._lane(key, zone)
            lane.line.add(job)
            # Who comes takes all that is small; what is large needs a thread for each.
            if not lane.coming or job.length > SMALL_BYTES or key.op != "get":
                self._call(lane)

    def _lane(self, key: Key, zone: str) -> Lane:
        limits = self.limits
        limit = (
            limits.connections if key.op == "get" and not key.is_leaf else limits.leaf_connections
        )
        return Lane(key, limit, zone == self._caller.zone, Line(batched=key.op == "get"))

    def _call(self, lane: Lane) -> None:
        """Have one more thread look at the line. Under the lock."""
        if lane.idle:
            seat = lane.idle.pop()
            seat.called = True
            seat.wake.notify()
        elif lane.threads < lane.limit and not self._closed:
            name = f"peer-{lane.key.callee.node}-{lane.key.op}"
            thread = threading.Thread(target=self._run, args=(lane,), name=name, daemon=True)
            try:
                thread.start()  # gets as far as our lock
            except RuntimeError as error:  # no more threads: who is there must do
                log.warning("no thread to ask %s: %s", lane.key.callee, error)
                return
            lane.threads += 1
            self._threads.add(thread)
        else:
            return  # all are at work; who becomes free looks
        lane.coming += 1

    def _drop(self, job: Job) -> None:
        """Nobody waits for it any more (or it has ended)."""
        with self._lock:
            job.gone = True
            link = job.link
            if link is None:
                return
            waiting = self._on_wire[link]
            waiting.discard(job)
            if not waiting:
                link.abandon()  # it was the last that somebody wanted of that request

    def _deliver(self, job: Job, outcome: object) -> None:
        if self._mail is not None:
            self._mail.put(job.future, outcome)

    # -- in threads -------------------------------------------------------------------------------

    def _run(self, lane: Lane) -> None:
        link: Link | None = None
        seat = Seat(threading.Condition(self._lock))
        try:
            while jobs := self._next(lane, seat):
                link = self._serve(lane, link, jobs)
        finally:
            if link is not None:
                link.close()
            with self._lock:
                self._threads.discard(threading.current_thread())

    def _retire(self, lane: Lane) -> list[Job]:
        """This thread takes nothing more from the lane. Under the lock that found it empty."""
        lane.threads -= 1
        self._buffers.trim(self.limits.idle_seconds)
        if not lane.threads:
            self._short_of_room.discard(lane)
            del self._lanes[lane.key]
        return []

    def _next(self, lane: Lane, seat: Seat) -> list[Job]:
        """What to ask for next; waits for it. Nothing when the thread shall end."""
        with self._lock:
            while not self._closed:
                if seat.called:
                    seat.called = False
                    lane.coming -= 1
                if lane.line:
                    jobs = lane.line.take(self._room(leaf=lane.key.is_leaf))
                    if jobs:
                        self._take_off(lane, jobs)
                        return jobs
                    self._short_of_room.add(lane)
                lane.idle.append(seat)
                seat.wake.wait(self.limits.idle_seconds)
                if not seat.called:
                    lane.idle.remove(seat)
                    if not lane.line:
                        return self._retire(lane)
            return self._retire(lane)

    def _room(self, *, leaf: bool) -> int:
        flying = self._flight_bytes[leaf]
        if not flying:  # one request always goes, whatever its size
            return wire.PAYLOAD_MAX_BYTES
        return self.limits.flight_bytes - flying

    def _take_off(self, lane: Lane, jobs: list[Job]) -> None:
        for job in jobs:
            job.flying = True
            self._flight_bytes[lane.key.is_leaf] += job.length
        if lane.line and not lane.coming:
            self._call(lane)

    def _landed(self, lane: Lane, job: Job) -> None:
        """Its bytes are no longer on their way. Under the lock."""
        job.link = None
        if job.flying:
            job.flying = False
            self._flight_bytes[lane.key.is_leaf] -= job.length
            for other in self._short_of_room:
                self._call(other)
            self._short_of_room.clear()

    def _serve(self, lane: Lane, link: Link | None, jobs: list[Job]) -> Link | None:
        """Carry out one request; the connection if it can be used again."""
        callee = lane.key.callee
        if link is not None and not link.is_usable():
            link.close()
            link = None
        is_new = link is None
        if link is None:
            link = Link(self._caller, callee, self._buffers)
        problem: CacheopError = PeerUnavailable(f"asking {callee} failed")
        also: list[Job] = []
        is_good = False
        try:
            with self._lock:
                waiting = {job for job in jobs if not job.gone}
                for job in waiting:
                    job.link = link
                self._on_wire[link] = waiting
                if not waiting or self._closed:
                    raise ConnectionAbortedError("nobody waits for it any more")
            if is_new:
                link.open()
            self._exchange(lane, link, jobs)
            is_good = True
        except PeerError as error:  # it could not be opened: nor can it for the others that wait
            problem = error
            if not link.is_abandoned:
                with self._lock:
                    also = lane.line.take_all()
        except ProtocolError as error:
            problem = PeerBadBytes(f"{callee} does not keep to the protocol: {error.message}")
        except OSError as error:
            problem = PeerUnavailable(f"{callee} did not answer: {error}")
        finally:
            with self._lock:
                left = self._on_wire.pop(link)
                for job in jobs:
                    self._landed(lane, job)
            for job in (*left, *also):
                self._deliver(job, problem)
            if not is_good:
                link.close()
        return link if is_good else None

    def _exchange(self, lane: Lane, link: Link, jobs: list[Job]) -> None:
        wait_seconds = max(job.deadline for job in jobs) - time.monotonic() + HEADROOM_SECONDS

        def arrived(count: int) -> None:
            self.received.moved(count, same_zone=lane.same_zone, node=lane.key.callee.node)

        def ended(number: int, outcome: object) -> bool:
            job = jobs[number]
            with self._lock:
                waiting = self._on_wire[link]
                waiting.discard(job)
                self._landed(lane, job)
            self._deliver(job, outcome)
            return bool(waiting)

        key = lane.key
        if key.op == "get":
            wanted = tuple(job.wanted for job in jobs if job.wanted is not None)
            request = Get(key.version, wanted, key.only_if_present, key.hops, key.without)
            link.get(request, wait_seconds, arrived=arrived, ended=ended)
            return
        (job,) = jobs
        try:
            ended(0, link.ask(key.op, job.meta, job.length, wait_seconds))
        except AnsweredError as error:
            ended(0, error.error)


def _expire(future: asyncio.Future[Any], key: Key, seconds: float) -> None:
    if not future.done():
        future.set_exception(PeerUnavailable(f"{key.callee} did not answer in {seconds:g} s"))


def _result_of(error: CacheopError) -> str:
    if isinstance(error, PeerBadBytes):
        return "bad_bytes"
    return "unavailable" if isinstance(error, PeerUnavailable) else "error"
