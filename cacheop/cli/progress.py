"""The progress of one load, or one drain, as one: sums over nodes, and words for it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cacheop.cli import view

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LOADING, COMPLETE, FAILED, CANCELLED = "Loading", "Complete", "Failed", "Cancelled"
_SUMS = ("bytes", "bytes_total", "files", "files_total", "rate_bytes_per_second")


def merge_loads(events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The last that each node said of the same load ({} = nothing yet) as one report.

    Every node tells its own share, so amounts add up. A file in parts of several nodes fails once.
    """
    merged: dict[str, Any] = {key: sum(e.get(key) or 0 for e in events) for key in _SUMS}
    named: dict[str, Mapping[str, Any]] = {}
    unnamed = 0
    for event in events:
        failed = event.get("failed") or ()
        for failure in failed:
            named.setdefault(str(failure["path"]), failure)
        unnamed += max(0, (event.get("failed_files") or 0) - len(failed))
    return {
        "phase": _phase([str(e.get("phase") or LOADING) for e in events]),
        **merged,
        "failed": list(named.values()),
        "failed_files": len(named) + unnamed,
        "eta_seconds": _eta_seconds(events),
    }


def _phase(phases: Sequence[str]) -> str:
    """Complete when all are; Loading as long as one is; else what went wrong."""
    for phase in (LOADING, FAILED, CANCELLED):
        if phase in phases:
            return phase
    return COMPLETE if phases and set(phases) == {COMPLETE} else FAILED


def _eta_seconds(events: Sequence[Mapping[str, Any]]) -> float | None:
    """Until the last is done; None while one with something to do does not know."""
    longest = 0.0
    for event in events:
        if event.get("phase") in {COMPLETE, FAILED, CANCELLED}:
            continue
        left = (event.get("bytes_total") or 0) - (event.get("bytes") or 0)
        seconds = event.get("eta_seconds")
        if seconds is None and (left or not event):
            return None
        longest = max(longest, seconds or 0.0)
    return longest


def load_words(event: Mapping[str, Any]) -> str:
    """What is said of a load besides its bytes."""
    return (
        f"{view.count(event.get('files') or 0)} of "
        f"{view.count(event.get('files_total') or 0, 'file')}, "
        f"{view.size(event.get('rate_bytes_per_second'))}/s, "
        f"{view.duration(event.get('eta_seconds'))} to go"
    )


def drain_words(event: Mapping[str, Any]) -> str:
    """What is said of a drain besides its bytes."""
    return (
        f"{view.count(event.get('chunks') or 0)} of "
        f"{view.count(event.get('chunks_total') or 0, 'chunk')} handed over"
    )


def line(event: Mapping[str, Any], words: str) -> str:
    """Progress as one line: `50.0 %: 1.0 GiB of 2.0 GiB, …`."""
    done, total = event.get("bytes") or 0, event.get("bytes_total") or 0
    share = view.percent(done / total if total else None)
    return f"{share}: {view.size(done)} of {view.size(total)}, {words}"
