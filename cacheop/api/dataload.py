"""`kind: DataLoad`: fetch parts of a Dataset now or by the clock. Same rules as dataset.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping  # noqa: TC003 - the parser reads the annotations
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from cacheop.api.conditions import CONDITIONS, COUNT, Condition
from cacheop.api.cron import parse_cron
from cacheop.api.dataset import PATH, RATE, VERSION, PathTarget
from cacheop.api.document import LABEL, read_document, write_document
from cacheop.api.errors import SpecError
from cacheop.api.model import JSON, Limits, Problem, Rule
from cacheop.api.parse import spec_error

KIND = "DataLoad"


def _check_schedule(text: str) -> Iterator[Problem]:
    if text:
        try:
            parse_cron(text)
        except SpecError as error:
            yield Problem((), error.message)


@dataclass(frozen=True, slots=True)
class DataLoadSpec:
    """What to load of which Dataset, and when."""

    dataset: Annotated[str, LABEL]
    """A Dataset in the same namespace."""
    version: Annotated[str, VERSION] = ""
    """The version to load; empty means the current one."""
    target: Annotated[tuple[PathTarget, ...], Limits(minimum=1, max_items=256)] = (PathTarget(),)
    """Files and directories to load; the whole Dataset when not given."""
    replicas: Annotated[int | Literal["all"], Limits(minimum=1, maximum=10000)] = 1
    """On how many nodes each chunk is to be; "all" means every node that has a worker."""
    policy: Literal["Once", "Cron"] = "Once"
    """Once loads when the object is made, Cron at each time of `schedule`."""
    schedule: Annotated[str, Limits(max_length=128, check=_check_schedule)] = ""
    """When, for policy Cron: minute hour day month weekday, in UTC."""
    suspend: bool = False
    """Start no new load; a running one pauses."""
    cancel: bool = False
    """End a running load; what it loaded stays."""
    max_origin_bytes_per_second: Annotated[int | None, RATE] = None
    """Most bytes a second from the origin; unset means the Dataset's own limit."""
    backoff_limit: Annotated[int, Limits(minimum=0, maximum=100)] = 3
    """How often failed files are tried again before the load has failed."""
    ttl_seconds_after_finished: Annotated[int | None, Limits(minimum=0, maximum=2**31 - 1)] = None
    """Delete this object so long after its end; unset means never."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule("self.policy != 'Cron' || self.schedule != ''", "policy Cron needs a schedule"),
        Rule("self.policy == 'Cron' || self.schedule == ''", "a schedule needs policy Cron"),
        Rule("self.dataset == oldSelf.dataset", "dataset cannot be changed; make a new DataLoad"),
    )

    def problems(self) -> Iterator[Problem]:
        """Policy and schedule that do not belong together."""
        if self.policy == "Cron" and not self.schedule:
            yield Problem(("schedule",), "is missing: policy Cron needs one")
        if self.policy != "Cron" and self.schedule:
            yield Problem(("schedule",), f"needs policy Cron, not {self.policy}")


@dataclass(frozen=True, slots=True)
class FailedFile:
    """A file that could not be loaded."""

    path: Annotated[str, PATH]
    """Its path in the Dataset."""
    error: Annotated[str, Limits(max_length=1024)] = ""
    """Why."""


@dataclass(frozen=True, slots=True)
class DataLoadStatus:
    """How far a load is."""

    phase: Literal["Pending", "Loading", "Complete", "Failed", "Cancelled"] = "Pending"
    """The state in one word."""
    percentage: Annotated[int, Limits(minimum=0, maximum=100)] = 0
    """Share of the bytes that is loaded."""
    version: Annotated[str, Limits(max_length=64)] = ""
    """The version that is loaded."""
    bytes: Annotated[int, COUNT] = 0
    """Bytes loaded."""
    bytes_total: Annotated[int, COUNT] = 0
    """Bytes to load."""
    files: Annotated[int, COUNT] = 0
    """Files loaded."""
    files_total: Annotated[int, COUNT] = 0
    """Files to load."""
    failed: Annotated[tuple[FailedFile, ...], Limits(max_items=100)] = ()
    """Files that could not be loaded; the first hundred."""
    rate: Annotated[str, Limits(max_length=32)] = ""
    """For people: 1.2Gi/s."""
    eta: Annotated[str, Limits(max_length=32)] = ""
    """Time left, for people: 3m."""
    attempts: Annotated[int, Limits(minimum=0, maximum=1000)] = 0
    """How often this load was begun."""
    last_schedule_time: Annotated[str | None, Limits(max_length=64)] = None
    """When policy Cron began a load last, RFC 3339."""
    started_at: Annotated[str | None, Limits(max_length=64)] = None
    """When this load began, RFC 3339."""
    finished_at: Annotated[str | None, Limits(max_length=64)] = None
    """When it ended, RFC 3339."""
    conditions: Annotated[tuple[Condition, ...], CONDITIONS] = ()
    """Aspects of the state."""
    observed_generation: Annotated[int | None, COUNT] = None
    """metadata.generation that this status is about."""


@dataclass(frozen=True, slots=True)
class DataLoad:
    """A `kind: DataLoad` document."""

    name: str
    spec: DataLoadSpec
    namespace: str = "default"


def read_dataload(document: JSON) -> tuple[DataLoad | None, tuple[Problem, ...]]:
    """The DataLoad and no problem, or None and all problems."""
    head, spec, problems = read_document(document, KIND, DataLoadSpec)
    if problems or head is None:
        return None, problems
    return DataLoad(name=head.name, namespace=head.namespace, spec=spec), ()


def parse_dataload(document: Mapping[str, JSON]) -> DataLoad:
    """The DataLoad of a document as YAML or JSON gave it. Raises SpecError with every problem."""
    load, problems = read_dataload(document)
    if load is None:
        raise spec_error(KIND, problems)
    return load


def to_document(load: DataLoad) -> dict[str, JSON]:
    """The document of `load` without what is default: parse_dataload gives `load` back."""
    return write_document(KIND, load.name, load.namespace, load.spec)
