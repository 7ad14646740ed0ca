"""Pure: the figures that the mount is to reach, by row and mode."""

from __future__ import annotations

from benchmarks.mount.figures import EXT4, JUICEFS, Figure, Goal, Series, figure, medians_of

READERS = (1, 2, 4, 8)
WARM, DISK, COLD = "small files, warm", "small files, from disk", "small files, from the origin"
BIG_READ, BIG_MAP, BIG_COLD = "big file, read", "big file, mmap", "big file, from the origin"
CONFINED = "5 GB, reader in 1 GiB"
KILLED = "killed for want of memory"
REQUESTS = "requests to Python, warm epoch"
OTHER_REQUESTS = "… but OPEN and RELEASE"
ONCE = "page cache, times the files"
LS, FIND = "ls -lR of 100,000", "find over 1,000,000"  # the full run's
DISK_BEST = 0.7


def with_readers(what: str, readers: int) -> str:
    """The name of a row."""
    return f"{what}, {readers} reader{'s' if readers > 1 else ''}"


def _table() -> dict[tuple[str, str], tuple[Goal, ...]]:
    local = (Goal(at_least=0.95, against=EXT4), Goal(at_least=15, against=JUICEFS))
    found: dict[tuple[str, str], tuple[Goal, ...]] = {
        (with_readers(WARM, readers), mode): local
        for readers in READERS
        for mode in ("ZeroOpen", "Native")
    }
    found[with_readers(WARM, 8), "Passthrough"] = (
        Goal(at_least=0.3, against=EXT4),
        Goal(at_least=5, against=JUICEFS),
    )
    found[with_readers(DISK, 8), "Native"] = (Goal(at_least=0.95, against=EXT4),)
    for what in (BIG_READ, BIG_MAP):
        for mode, least in (("Passthrough", 0.9), ("ZeroOpen", 0.95), ("Native", 0.95)):
            found[what, mode] = (Goal(at_least=least, against=EXT4),)
    found[CONFINED, "Passthrough"] = (Goal(at_least=0.65, against=EXT4),)
    found[with_readers(COLD, 8), "Auto"] = (Goal(at_least=0.7, against="load"),)
    found[BIG_COLD, "Auto"] = (Goal(at_least=0.8, against="load"),)
    return found


_TABLE = _table()
_ANY_SYSTEM = {
    KILLED: (Goal(at_most=0),),
    LS: (Goal(at_most=1),),
    FIND: (Goal(at_most=15),),
}
_SOME_MODES: dict[tuple[str, str], tuple[Goal, ...]] = {
    (REQUESTS, "ZeroOpen"): (Goal(at_most=0),),
    (OTHER_REQUESTS, "Passthrough"): (Goal(at_most=0),),
}


def goals_of(series: Series) -> tuple[Goal, ...]:
    """What this series is to reach; () where it is only shown."""
    if series.what == ONCE and not series.system.startswith(JUICEFS):
        return (Goal(at_most=1.05),)
    if series.system == EXT4:
        return ()
    if series.what in _ANY_SYSTEM:
        return _ANY_SYSTEM[series.what]
    key = (series.what, series.system)
    return _TABLE.get(key, _SOME_MODES.get(key, ()))


def judge(rows: list[Series]) -> list[Figure]:
    """Every series as a figure, with the one goal that takes the best of two modes."""
    medians = medians_of(rows)
    figures = [figure(series, medians, goals_of(series)) for series in rows if series.runs()]
    best = [
        f
        for f in figures
        if f.what == with_readers(DISK, 8) and f.system in {"ZeroOpen", "Passthrough"} and f.ratio
    ]
    if best:
        top = max(best, key=lambda f: f.ratio or 0.0)
        text = f"best of both >= {DISK_BEST:g} x {EXT4}"
        top.goals[text] = (top.ratio or 0.0) >= DISK_BEST
    return figures
