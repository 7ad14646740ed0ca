"""What an eviction policy is: it hears of reads and chooses; it deletes nothing. Pure.

Chunks are named by their slot in the table. A *stream* is one job's reads of one version: a mount,
or the connections of one process group of clients. Never merge jobs: their orders differ, and what
one has read another still needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence


class Held(Protocol):
    """What the cache holds and may give up. The caller's: policies have no dice and no disk."""

    def sample(self, count: int) -> Sequence[int]:
        """About `count` chunks that may go, from random places, each once; all, if they are fewer.

        What is pinned is never among them.
        """
        ...

    def may_go(self, slot: int) -> bool:
        """Whether a chunk that the policy remembers is here and not pinned."""
        ...

    def lengths(self, slots: Sequence[int]) -> Sequence[int]:
        """Bytes of each chunk."""
        ...

    def copies(self, slots: Sequence[int]) -> Collection[int]:
        """Those that another node of the cluster has too, or should."""
        ...


class Policy(Protocol):
    """Inherit it: what a policy does not care about does nothing."""

    remembers_order: bool = False
    """Whether it is to be told at the start what is here, the longest unused first."""

    def joined(self, stream: int, chunks: range) -> None:
        """A stream begins; `chunks` are the slots of the version that it reads."""

    def left(self, stream: int) -> None:
        """A stream ended."""

    def read(self, stream: int, slots: Sequence[int], units: Sequence[int] | None = None) -> None:
        """`stream` read these chunks, in this order, whether they were here or not.

        `units`: which part of each, see hotness.units; by default all of it.
        """

    def planned(
        self, stream: int, slots: Iterable[int], at: Iterable[int] | None = None, ranks: int = 1
    ) -> None:
        """What `stream` will read at these positions of its order.

        By default after all that was planned before. `ranks`: so many read at the same time, each
        in an order of its own.
        """

    def reached(self, stream: int, position: int) -> None:
        """`stream` has come so far in its order."""

    def unplanned(self, stream: int) -> None:
        """What `stream` told of its order is void."""

    def kept(self, slot: int) -> None:
        """A chunk is here now."""

    def dropped(self, slot: int) -> None:
        """A chunk is not here any more."""

    def victims(self, held: Held, need_bytes: int, newcomer: int | None = None) -> list[int]:
        """Which chunks to drop, in order, so that `need_bytes` go.

        For a `newcomer` only what is worth less than it may go; if that is not enough, nothing
        goes, and the newcomer is not admitted: it is read through, and only the part that is asked
        for. Without a newcomer the bytes must go: as many as there are, where they are too few.
        """
        ...
