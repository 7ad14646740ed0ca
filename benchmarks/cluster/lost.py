"""One of four nodes is SIGKILLed half-way through a cold Dataset."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from benchmarks.cluster.cold import bad
from benchmarks.cluster.place import origin_bytes, wait_filled
from benchmarks.report import Row, at_most
from tests.fakes.lab.held import held_chunks

if TYPE_CHECKING:
    from benchmarks.cluster.place import Place
    from tests.fakes.lab.readers import Seen

LOST = "n3"
THREADS = 2
"""Few, so that a read takes as long as the read and not the queue before it."""
WINDOW_SECONDS = 1.0
STEP_SECONDS = 0.25
NORMAL = 1.5
"""A p99 up to so many times the one before is normal: two windows of one run differ by as much."""
RECOVERY_SECONDS = 5.0


@dataclass(slots=True)
class Loss:
    """What was known in the moment of the kill."""

    moment: float = 0.0
    origin_bytes: float = 0.0
    unshared_bytes: int = 0


def measure(place: Place) -> list[Row]:
    """Errors, bytes read again, and how long reads were slow."""
    files, what, loss = place.medium, "one of four killed half-way", Loss()
    place.shape(place.sizes.medium_mbit)
    with place.running(4, files) as nodes:

        def lose(*_: object) -> None:
            wait_filled(nodes[0], files, 0.5)
            *others, victim = nodes
            theirs = set().union(*map(held_chunks, others))
            loss.unshared_bytes = sum(h.length for h in held_chunks(victim) - theirs)
            loss.origin_bytes = origin_bytes(victim)
            loss.moment = time.monotonic()
            victim.kill()

        fill = place.fill(
            nodes, files, threads=THREADS, during=lose, counted=lambda node: node.name != LOST
        )
    fill.seen = [seen for seen in fill.seen if seen.node != LOST]
    extra = sum(fill.origin_bytes.values()) + loss.origin_bytes - files.total_bytes
    before, after = recovery(fill.seen, loss.moment)
    mib = 1 << 20
    return [
        bad(f"{what}: the others", [fill]),
        replace(
            at_most(f"{what}: read again", "MiB", [extra / mib], loss.unshared_bytes / mib),
            note=f"limit: what only it held; the Dataset has {files.total_bytes / mib:.0f} MiB",
        ),
        replace(
            at_most(f"{what}: p99 back to normal", "s", [after], RECOVERY_SECONDS),
            note=f"p99 before {before * 1e3:.0f} ms; normal is {NORMAL} x that; {fill.load}",
        ),
    ]


def recovery(seen: list[Seen], moment: float) -> tuple[float, float]:
    """(p99 of the reads before `moment`, seconds after it until every window's p99 is normal)."""
    began = min(one.began for one in seen)
    ended = min(one.ended for one in seen)
    normal = _p99(seen, began + (moment - began) / 4, moment)
    last, at = 0.0, moment
    while at < ended:
        if _p99(seen, at, at + WINDOW_SECONDS) > NORMAL * normal:
            last = at + WINDOW_SECONDS - moment
        at += STEP_SECONDS
    return normal, last


def _p99(seen: list[Seen], since: float, until: float) -> float:
    """0 when nothing was read: a reader that hangs is seen when its read ends at last."""
    reads = sorted(seconds for one in seen for _, seconds, _ in one.between(since, until))
    return reads[int(len(reads) * 0.99)] if reads else 0.0
