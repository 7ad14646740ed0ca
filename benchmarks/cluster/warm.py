"""One node reads what its neighbour holds, beside raw sockets over the same link."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from benchmarks.cluster.limits import received
from benchmarks.cluster.place import origin_bytes
from benchmarks.report import Row, at_most, versus
from benchmarks.setting import SMALL_BYTES
from tests.fakes.lab.held import held_chunks
from tests.fakes.lab.origin import PIECE_BYTES

if TYPE_CHECKING:
    from benchmarks.cluster.limits import Run
    from benchmarks.cluster.place import Fill, Place
    from tests.fakes.lab.origin import Files

NEIGHBOUR, READER = "n0", "n1"
THREADS = 4


def measure(place: Place) -> list[Row]:
    """MB/s and files/s over a link that is slower than the CPUs."""
    return [*_big(place), *_small(place)]


def _big(place: Place) -> list[Row]:
    turns = _in_turn(place, place.big, PIECE_BYTES, connections=THREADS)
    rates = [place.big.total_bytes / fill.seconds / 1e6 for fill in turns.fills]
    beside = [run.mb_per_second for run in turns.limits]
    taken = [run.mb_per_second for run in turns.taken]
    what = "warm neighbour, big chunks"
    verified = versus(f"{what}, verified, to a reader", "MB/s", rates, beside, 0.7)
    return [
        replace(verified, note=turns.note),
        versus(f"{what}, thrown away unverified", "MB/s", taken, beside, 0.85),
        at_most(f"{what}: from the origin", "MB", [turns.from_origin / 1e6], 0),
    ]


def _small(place: Place) -> list[Row]:
    turns = _in_turn(place, place.small, SMALL_BYTES, connections=1)
    rates = [place.small.count / fill.seconds for fill in turns.fills]
    beside = [run.bytes / SMALL_BYTES / run.seconds for run in turns.limits]
    taken = [run.bytes / SMALL_BYTES / run.seconds for run in turns.taken]
    what = "warm neighbour, 110 KB"
    verified = versus(f"{what}, verified, to a reader", "files/s", rates, beside, 0.5)
    return [
        replace(verified, note=turns.note),
        versus(f"{what}, thrown away unverified", "files/s", taken, beside, 0.5),
        at_most(f"{what}: from the origin", "MB", [turns.from_origin / 1e6], 0),
    ]


@dataclass(slots=True)
class Turns:
    """A raw loop, a peer that throws away, and a node with an empty cache: by turns."""

    limits: list[Run] = field(default_factory=list)
    taken: list[Run] = field(default_factory=list)
    fills: list[Fill] = field(default_factory=list)
    from_origin: float = 0.0

    @property
    def note(self) -> str:
        """What the CPUs did."""
        return "; ".join(str(fill.load) for fill in self.fills)


def _in_turn(place: Place, files: Files, length: int, *, connections: int) -> Turns:
    place.shape(0)
    turns = Turns()
    nodes = place.nodes(2, files)
    neighbour, reader = nodes
    try:
        neighbour.start()
        neighbour.call("load", 300, paths=[])
        chunks = sorted(held_chunks(neighbour), key=lambda held: (held.row, held.chunk))
        place.shape(place.sizes.warm_mbit)
        with place.raw(NEIGHBOUR, files.total_bytes) as raw:
            for _ in range(place.sizes.rounds):
                count = files.total_bytes // length
                turns.limits.append(raw.get(reader.host, count, length, connections))
                turns.taken.append(received(neighbour, reader.host, chunks, THREADS))
                reader.start()
                turns.fills.append(place.fill([reader], files, threads=THREADS))
                turns.from_origin += origin_bytes(reader)
                reader.wipe()
    finally:
        for node in nodes:
            node.wipe()
    for fill in turns.fills:
        if fill.bad:
            raise RuntimeError(f"{fill.bad} bad reads: {fill.first_error}")
    return turns
