"""A trace: which stream read which chunk, in order; its text form. Pure.

One line a read: `STREAM CHUNK`, or `STREAM CHUNK READ_BYTES CHUNK_BYTES`; `#` begins a comment.
`# version FIRST COUNT` says that those chunks are one version (else all are one).
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cacheop.api.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True)
class Trace:
    """Reads of chunks by streams. Chunks without a length are of one byte each."""

    name: str
    streams: Sequence[int]
    slots: Sequence[int]
    versions: tuple[range, ...]
    """Disjoint ranges of slots."""
    warm: int = 0
    """So many reads at the beginning are not counted."""
    basis: int = 0
    """Chunks that a cache is a share of; 0 = all."""
    shares: tuple[float, ...] = (0.1, 0.25, 0.5, 0.75, 0.9)
    """The caches that are of interest."""
    lengths: Sequence[int] = ()
    """Bytes of each chunk."""
    read_bytes: Sequence[int] = ()
    """Bytes of each read; empty = whole chunks."""
    plans: bool = False
    """Whether the streams tell each epoch's order, and the next one's, before it begins."""
    epoch_reads: int = 0
    """Reads in an epoch of a stream, where `plans` are told by epochs."""

    @property
    def capacities(self) -> list[int]:
        """Bytes of a cache, by share."""
        chunks = self.basis or self.chunks
        total = sum(self.lengths[:chunks]) if self.lengths else chunks
        return [max(1, int(total * share)) for share in self.shares]

    @property
    def chunks(self) -> int:
        """One past the last chunk."""
        return max((version.stop for version in self.versions), default=0)

    def version_of(self, slot: int) -> range:
        """The version that a chunk belongs to."""
        return next(version for version in self.versions if slot in version)


@dataclass(slots=True)
class _Parsed:
    streams: array[int] = field(default_factory=lambda: array("I"))
    slots: array[int] = field(default_factory=lambda: array("I"))
    read_bytes: array[int] = field(default_factory=lambda: array("Q"))
    lengths: dict[int, int] = field(default_factory=dict)
    versions: list[range] = field(default_factory=list)


def parse(name: str, lines: Iterable[str], *, warm_share: float = 0.5) -> Trace:
    """A trace from its text. UserError names the line that is wrong."""
    found = _Parsed()
    for number, line in enumerate(lines, 1):
        try:
            _take(found, line.split())
        except (ValueError, OverflowError) as error:
            raise UserError(
                f"{name}, line {number}: {line.strip()!r} is no read",
                hint="Write `STREAM CHUNK` or `STREAM CHUNK READ_BYTES CHUNK_BYTES`",
            ) from error
    end = max(found.slots, default=-1) + 1
    sized = len(found.read_bytes) == len(found.slots) and bool(found.slots)
    return Trace(
        name,
        found.streams,
        found.slots,
        tuple(found.versions) or (range(end),),
        warm=int(len(found.slots) * warm_share),
        lengths=[found.lengths.get(slot, 0) for slot in range(end)] if sized else (),
        read_bytes=found.read_bytes if sized else (),
    )


def _take(found: _Parsed, words: list[str]) -> None:
    if words[:2] == ["#", "version"]:
        first, count = int(words[2]), int(words[3])
        found.versions.append(range(first, first + count))
        return
    if not words or words[0].startswith("#"):
        return
    if len(words) not in {2, 4}:
        raise ValueError(words)
    found.streams.append(int(words[0]))
    found.slots.append(int(words[1]))
    if len(words) == 4:
        found.read_bytes.append(int(words[2]))
        found.lengths[int(words[1])] = int(words[3])
