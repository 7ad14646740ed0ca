"""Placing chunks on a thousand members that are only simulated: the pure code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks import placement

if TYPE_CHECKING:
    from benchmarks.cluster.place import Place
    from benchmarks.report import Row


def measure(place: Place) -> list[Row]:
    """Time, balance, and what moves when one leaves."""
    return placement.rows(chunks=place.sizes.placed_chunks)
