"""Pure: runs become figures with ratios, CPU time and goals."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

EXT4 = "ext4"
JUICEFS = "JuiceFS"
JUICEFS_FASTEST = "JuiceFS fastest"
GIGABYTE = 1e9
MODES = ("ZeroOpen", "Passthrough", "Native", "Fuse")


@dataclass(frozen=True, slots=True)
class Sample:
    """One timed pass of one system."""

    seconds: float
    files: int
    bytes: int
    cpu_seconds: dict[str, float]
    """By process: reader, mount, work, hold, supervise, juicefs."""


@dataclass(slots=True)
class Series:
    """All runs of one system in one row, and those of its baseline taken in turn with them."""

    what: str
    system: str
    unit: str
    mode: str = ""
    """What cacheop chose, and why."""
    samples: list[Sample] = field(default_factory=list)
    beside: list[Sample] = field(default_factory=list)
    baseline: str = EXT4
    values: list[float] = field(default_factory=list)
    """Where a figure is no rate: seconds or counts."""
    note: str = ""

    def rates(self, samples: list[Sample]) -> list[float]:
        """Each run in `unit`."""
        if self.unit == "files/s":
            return [sample.files / sample.seconds for sample in samples]
        return [sample.bytes / sample.seconds / 1e6 for sample in samples]

    def runs(self) -> list[float]:
        """The values behind the median."""
        return self.values or self.rates(self.samples)


@dataclass(frozen=True, slots=True)
class Goal:
    """What the median of a row must reach: a value, or a ratio to another system's median."""

    at_least: float | None = None
    at_most: float | None = None
    against: str = ""
    """A system, the series' own baseline as "baseline", or "" for the value itself."""

    def text(self) -> str:
        """For the table."""
        sign, limit = (">=", self.at_least) if self.at_most is None else ("<=", self.at_most)
        return f"{sign} {limit:g}" + (f" x {self.against}" if self.against else "")

    def met(self, value: float) -> bool:
        """Whether `value` reaches it."""
        if self.at_least is not None:
            return value >= self.at_least
        return self.at_most is None or value <= self.at_most


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table."""

    what: str
    system: str
    mode: str
    value: float
    unit: str
    spread: tuple[float, float]
    runs: list[float]
    baseline: str
    baseline_value: float | None
    ratio: float | None
    """value / baseline, of runs taken in turn."""
    x_juicefs: float | None
    x_juicefs_fastest: float | None
    cpu_seconds_per_file: float | None
    cpu_seconds_per_gigabyte: float | None
    baseline_cpu_seconds_per_file: float | None
    baseline_cpu_seconds_per_gigabyte: float | None
    cpu_share: dict[str, float]
    """CPU seconds of each process, all runs."""
    goals: dict[str, bool]
    note: str

    @property
    def met(self) -> bool | None:
        """All goals, or None where there are none."""
        return all(self.goals.values()) if self.goals else None


def cpu_by_process(samples: list[Sample]) -> dict[str, float]:
    """Sums over the runs."""
    names = {name for sample in samples for name in sample.cpu_seconds}
    return {
        name: round(sum(sample.cpu_seconds.get(name, 0.0) for sample in samples), 3)
        for name in sorted(names)
    }


def cpu_per(samples: list[Sample], unit: str) -> float | None:
    """CPU seconds of all processes for one file, or one gigabyte."""
    if not samples:
        return None
    seconds = sum(cpu_by_process(samples).values())
    if unit == "file":
        amount = float(sum(sample.files for sample in samples))
    else:
        amount = sum(sample.bytes for sample in samples) / GIGABYTE
    return seconds / amount if amount else None


def figure(
    series: Series, medians: dict[tuple[str, str], float], goals: tuple[Goal, ...]
) -> Figure:
    """One series as a line; `medians` has every (what, system) of the run."""
    runs = series.runs()
    value = statistics.median(runs)
    beside = series.rates(series.beside) if series.beside else []
    baseline_value = statistics.median(beside) if beside else None

    def ratio(other: float | None) -> float | None:
        return value / other if other else None

    against = {
        "": value,
        "baseline": ratio(baseline_value),
        series.baseline: ratio(baseline_value),
        JUICEFS: ratio(medians.get((series.what, JUICEFS))),
        JUICEFS_FASTEST: ratio(medians.get((series.what, JUICEFS_FASTEST))),
    }
    as_wished = series.system not in MODES or series.mode.startswith(series.system)
    judged = {
        goal.text(): as_wished and goal.met(found)
        for goal in goals
        if (found := against.get(goal.against)) is not None
    }
    return Figure(
        what=series.what,
        system=series.system,
        mode=series.mode,
        value=value,
        unit=series.unit,
        spread=(min(runs), max(runs)),
        runs=runs,
        baseline=series.baseline if beside else "",
        baseline_value=baseline_value,
        ratio=against["baseline"],
        x_juicefs=against[JUICEFS],
        x_juicefs_fastest=against[JUICEFS_FASTEST],
        cpu_seconds_per_file=cpu_per(series.samples, "file"),
        cpu_seconds_per_gigabyte=cpu_per(series.samples, "gigabyte"),
        baseline_cpu_seconds_per_file=cpu_per(series.beside, "file"),
        baseline_cpu_seconds_per_gigabyte=cpu_per(series.beside, "gigabyte"),
        cpu_share=cpu_by_process(series.samples),
        goals=judged,
        note=series.note,
    )


def medians_of(rows: list[Series]) -> dict[tuple[str, str], float]:
    """The median of every series, by row and system."""
    return {(s.what, s.system): statistics.median(s.runs()) for s in rows if s.runs()}
