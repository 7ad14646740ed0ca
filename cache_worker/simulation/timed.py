"""How busy a job is kept that told its order: planning's own decisions in a model's time. Pure.

The job wants `reads_per_second`, one after the other, and waits for what is not there. The origin
answers after `latency_seconds` and sends `chunks_per_second`, one after the other.
"""

from __future__ import annotations

import heapq
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cache_worker.planning.order import Order
from cache_worker.planning.window import Latencies, Pace, window_reads
from cache_worker.simulation.replay import SimulatedCache, admit
from cacheop.api.plan import Reads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cache_worker.eviction.policy import Policy

STREAM = 1


@dataclass(frozen=True, slots=True)
class Origin:
    """What a fetch costs."""

    latency_seconds: float
    chunks_per_second: float


class TimedJob:
    """One job alone on one node, chunks of one size."""

    def __init__(
        self,
        policy: Policy,
        chunks: int,
        capacity: int,
        origin: Origin,
        *,
        reads_per_second: float,
        at_once: int,
        planned: bool = True,
    ) -> None:
        self._policy, self._origin, self._at_once = policy, origin, at_once
        self._cache = SimulatedCache(chunks, capacity, (), 1)
        self._step, self._planned = 1.0 / reads_per_second, planned
        self._now = self._free_at = 0.0
        self._coming: list[tuple[float, float, int]] = []  # (arrives, asked, chunk), as a heap
        self._underway: set[int] = set()
        self._order = Order(lambda row, *_: (row, range(1)))
        self._cache.needed = self._order.needs
        self._pace, self._fetches, self._latencies = Pace(), Pace(), Latencies()
        policy.joined(STREAM, range(chunks))

    def run(self, epochs: Sequence[Sequence[int]]) -> list[float]:
        """The part of each epoch in which the job was busy."""
        busy = []
        for number, chunks in enumerate(epochs):
            for told in range(number, min(number + 2, len(epochs)) if self._planned else number):
                if told > number or not number:
                    self._tell(told, epochs[told])
            began = self._now
            for place, chunk in enumerate(chunks):
                if self._planned:
                    self._order.reached(number, place + 1)
                    self._pace.count(self._now, 1)
                    self._fetch_ahead()
                self._read(chunk)
            busy.append(len(chunks) * self._step / (self._now - began))
        return busy

    def _tell(self, number: int, chunks: Sequence[int]) -> None:
        reads = Reads(array("I", chunks))
        first = self._order.add(number, 0, reads, begin=True)
        self._policy.planned(STREAM, chunks, range(first, first + len(chunks)))

    def _read(self, chunk: int) -> None:
        self._policy.read(STREAM, [chunk])
        self._order.heard([chunk], own=True)
        self._arrive()
        if chunk not in self._cache:
            if chunk in self._underway:
                while chunk in self._underway:
                    self._now = max(self._now, self._coming[0][0])
                    self._arrive()
            else:
                admit(self._cache, self._policy, chunk, 1)
                self._now = self._sent()
                self._arrive()
        self._now += self._step

    def _fetch_ahead(self) -> None:
        self._arrive()
        while len(self._underway) < self._at_once:
            window = window_reads(
                self._pace.per_second, self._latencies.slow_seconds, self._fetches.per_second
            )
            due = self._order.next(window)
            if due is None:
                return
            chunk = due.slot
            absent = chunk not in self._cache and chunk not in self._underway
            if absent and admit(self._cache, self._policy, chunk, 1, ahead=True):
                self._cache.drop(chunk)  # it is there when it has arrived
                self._underway.add(chunk)
                heapq.heappush(self._coming, (self._sent(), self._now, chunk))

    def _sent(self) -> float:
        """When what is asked for now arrives."""
        origin = self._origin
        self._free_at = max(self._now, self._free_at) + 1.0 / origin.chunks_per_second
        return self._free_at + origin.latency_seconds

    def _arrive(self) -> None:
        while self._coming and self._coming[0][0] <= self._now:
            arrived, asked, chunk = heapq.heappop(self._coming)
            self._underway.discard(chunk)
            self._cache.keep(chunk)
            self._order.got(chunk, 1)
            self._latencies.add(arrived - asked)
            self._fetches.count(self._now, 1)
