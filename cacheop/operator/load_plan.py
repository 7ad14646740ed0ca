"""What a DataLoad comes to now: start, stop, wait, delete; and its status. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from cacheop.api.conditions import Condition
from cacheop.api.cron import next_after
from cacheop.api.dataload import DataLoadStatus, FailedFile
from cacheop.api.parse import write
from cacheop.cli.view import duration
from cacheop.operator.conditions import condition, stamped
from cacheop.operator.observed import rfc3339, seconds_of
from cacheop.operator.status import human

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cacheop.api.dataload import DataLoadSpec

FINISHED = ("Complete", "Failed", "Cancelled")
BACKOFF_SECONDS, BACKOFF_MAX_SECONDS = 10.0, 300.0
WAIT_SECONDS = 30.0
FAILED_MAX = 100

Action = Literal["", "start", "stop", "delete"]


@dataclass(frozen=True, slots=True)
class Run:
    """A load that was begun in this process."""

    version: str
    progress: Mapping[str, Any]
    """As all workers together tell it (cacheop/cli/progress.py)."""
    ended: bool = False
    error: str = ""
    """Why it broke off; empty when workers brought it to an end."""
    ended_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Target:
    """The Dataset that is to be loaded; `missing` says why it cannot be."""

    version: str = ""
    workers: int = 0
    missing: str = ""


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What is to be done."""

    action: Action
    status: Mapping[str, Any]
    wants_worker: bool = False
    again_at: float | None = None


@dataclass(frozen=True, slots=True)
class Moment:
    """When it is, and which document this is about."""

    now: float
    created_at: float
    generation: int
    before: Mapping[str, Any]


def plan_load(spec: DataLoadSpec, at: Moment, target: Target, run: Run | None) -> LoadPlan:
    """The next step, in the order in which a person would ask."""
    before = at.before
    phase = before.get("phase") or "Pending"
    edited = before.get("observedGeneration") not in (None, at.generation)
    due = _due(spec, at)
    if spec.cancel and not (phase in FINISHED and not edited):
        return _end(at, run, "Cancelled", "cancelled; what was loaded stays")
    if phase in FINISHED and not (edited and not spec.cancel and spec.policy == "Once"):
        if spec.policy == "Once" or spec.cancel or due is None or due > at.now:
            return _finished(spec, at, due)
        if spec.suspend:
            return LoadPlan("", before)
        return _begin(spec, at, target, scheduled=due)
    if spec.suspend:
        state = _status(at, run, "Pending", "Suspended", "spec.suspend is set")
        return LoadPlan("stop" if run is not None and not run.ended else "", state)
    if spec.policy == "Cron" and phase == "Pending" and run is None and not _is_begun(before):
        if due is None:
            return LoadPlan("", _status(at, None, "Pending", "NeverDue", "schedule has no time"))
        if due > at.now:
            said = f"the next load is at {rfc3339(due)}"
            return LoadPlan("", _status(at, None, "Pending", "Scheduled", said), again_at=due)
        return _begin(spec, at, target, scheduled=due)
    if run is None or edited:
        return _begin(spec, at, target)
    if not run.ended:
        state = _status(at, run, "Loading", "Loading", "")
        return LoadPlan("", state, wants_worker=True)
    return _ended(spec, at, target, run)


def _is_begun(before: Mapping[str, Any]) -> bool:
    return bool(before.get("startedAt")) and not before.get("finishedAt")


def _due(spec: DataLoadSpec, at: Moment) -> float | None:
    """When a load is due next, or was due since the last one."""
    if spec.policy != "Cron":
        return None
    since = seconds_of(at.before.get("lastScheduleTime")) or at.created_at
    found = next_after(spec.schedule, datetime.fromtimestamp(since, UTC))
    return found.timestamp() if found is not None else None


def _begin(
    spec: DataLoadSpec, at: Moment, target: Target, scheduled: float | None = None
) -> LoadPlan:
    """Start, or say what it waits for."""
    del spec
    if target.missing:
        state = _status(at, None, "Pending", "NoDataset", target.missing)
        return LoadPlan("", state, again_at=at.now + WAIT_SECONDS)
    if not target.workers or not target.version:
        state = _status(at, None, "Pending", "WaitingForWorker", "no worker is ready yet")
        return LoadPlan("", state, wants_worker=True, again_at=at.now + WAIT_SECONDS)
    fresh = {
        key: value for key, value in at.before.items() if key in ("lastScheduleTime", "conditions")
    }
    if scheduled is not None:
        # Of several that were missed one is made up for.
        fresh["lastScheduleTime"] = rfc3339(at.now)
    begun = _is_begun(at.before) and scheduled is None
    fresh["startedAt"] = at.before["startedAt"] if begun else rfc3339(at.now)
    fresh["attempts"] = (at.before.get("attempts") or 0) + 1 if begun else 1
    anew = Moment(at.now, at.created_at, at.generation, fresh)
    run = Run(target.version, {})
    return LoadPlan("start", _status(anew, run, "Loading", "Loading", ""), wants_worker=True)


def _ended(spec: DataLoadSpec, at: Moment, target: Target, run: Run) -> LoadPlan:
    """Complete only when every worker said so; else again, or failed for good."""
    if not run.error and run.progress.get("phase") == "Complete":
        return _end(at, run, "Complete", f"version {run.version}, verified", action="")
    attempts = at.before.get("attempts") or 1
    why = run.error or f"{run.progress.get('failed_files') or 'some'} files could not be loaded"
    if attempts > spec.backoff_limit:
        return _end(at, run, "Failed", f"{why}, tried {attempts} times", action="")
    wait = min(BACKOFF_SECONDS * 2 ** (attempts - 1), BACKOFF_MAX_SECONDS)
    if run.ended_at + wait > at.now:
        state = _status(at, run, "Loading", "Retrying", f"{why}; tried again soon")
        return LoadPlan("", state, wants_worker=True, again_at=run.ended_at + wait)
    return _begin(spec, at, target)


def _end(at: Moment, run: Run | None, phase: str, why: str, action: Action = "stop") -> LoadPlan:
    running = run is not None and not run.ended
    state = _status(at, run, phase, phase, why)
    state["finishedAt"] = rfc3339(at.now)
    return LoadPlan(action if running else "", state, again_at=at.now)


def _finished(spec: DataLoadSpec, at: Moment, due: float | None) -> LoadPlan:
    before = {**at.before, "observedGeneration": at.generation}
    if spec.policy == "Cron":
        return LoadPlan("", before, again_at=None if spec.cancel else due)
    if spec.ttl_seconds_after_finished is None:
        return LoadPlan("", before)
    until = (seconds_of(at.before.get("finishedAt")) or at.now) + spec.ttl_seconds_after_finished
    return LoadPlan("delete" if until <= at.now else "", before, again_at=until)


def _path(failed: Mapping[str, Any]) -> str:
    return "/" + str(failed["path"]).strip("/")[:1000]


def _status(at: Moment, run: Run | None, phase: str, reason: str, message: str) -> dict[str, Any]:
    """The status as a document."""
    before, told = at.before, run.progress if run is not None else {}

    def number(key: str, name: str) -> int:
        return int((told.get(key) if told else before.get(name)) or 0)

    done, total = number("bytes", "bytes"), number("bytes_total", "bytesTotal")
    files, files_total = number("files", "files"), number("files_total", "filesTotal")
    whole = phase == "Complete"
    part = int(100 * done / total) if total else (100 if whole else 0)
    failed = told.get("failed") if told else None
    conditions = stamped(
        [condition("Complete", whole, reason, message)],
        before.get("conditions") or (),
        at.generation,
        rfc3339(at.now),
    )
    moving = phase == "Loading" and run is not None and not run.ended
    rate, eta = told.get("rate_bytes_per_second"), told.get("eta_seconds")
    found = DataLoadStatus(
        phase=phase,  # type: ignore[arg-type]
        percentage=100 if whole else min(part, 99 if files < files_total else 100),
        version=(run.version if run is not None else before.get("version")) or "",
        bytes=done,
        bytes_total=total,
        files=files,
        files_total=files_total,
        failed=tuple(FailedFile(_path(f), str(f["error"])[:1024]) for f in failed[:FAILED_MAX])
        if failed
        else (),
        rate=f"{human(rate)}/s" if moving and rate else "",
        eta=duration(eta) if moving and eta is not None else "",
        attempts=before.get("attempts") or 0,
        last_schedule_time=before.get("lastScheduleTime"),
        started_at=before.get("startedAt"),
        finished_at=before.get("finishedAt") if phase in FINISHED else None,
        conditions=tuple(
            Condition(
                c["type"],
                c["status"],
                c["reason"],
                c["message"],
                c["lastTransitionTime"],
                c["observedGeneration"],
            )
            for c in conditions
        ),
        observed_generation=at.generation,
    )
    return write(found, full=True)
