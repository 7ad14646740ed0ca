"""What is mounted, as /proc/self/mountinfo tells it. Pure.

Nothing else is asked: whoever stats a mount without a server hangs, and bind mounts within one file
system do not show in a stat at all.
"""

from __future__ import annotations

PATH = "/proc/self/mountinfo"
_ESCAPES = (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\"))
# mountinfo: id, parent, major:minor, root, target, options, optional fields…, "-", type, source, …
_DEVICE, _ROOT, _TARGET, _OPTIONS, _LEAST_FIELDS = 2, 3, 4, 5, 10


class Mounted:
    """One line of mountinfo."""

    __slots__ = ("device", "inner", "kind", "options", "source", "target")

    def __init__(self, fields: list[str]) -> None:
        after = fields.index("-", _OPTIONS + 1)
        self.device = fields[_DEVICE]
        """major:minor"""
        self.inner = _plain(fields[_ROOT])
        """The directory of the file system that is mounted: "/" but for binds."""
        self.target = _plain(fields[_TARGET])
        self.options = fields[_OPTIONS].split(",")
        self.kind = fields[after + 1]
        self.source = _plain(fields[after + 2])


def parse(text: str) -> list[Mounted]:
    """The mounts, in the order in which they were made at each target."""
    found = []
    for line in text.splitlines():
        fields = line.split(" ")
        if len(fields) >= _LEAST_FIELDS and "-" in fields[_OPTIONS + 1 : -2]:
            found.append(Mounted(fields))
    return found


def topmost(mounts: list[Mounted], target: str) -> Mounted | None:
    """What is seen at `target`; None: nothing is mounted there."""
    return next((m for m in reversed(mounts) if m.target == target), None)


def holding(mounts: list[Mounted], path: str) -> tuple[Mounted, str] | None:
    """The mount that `path` (absolute, no symlinks) lies on, and its path in that file system."""
    best: Mounted | None = None
    for mounted in mounts:
        inside = mounted.target == "/" or f"{path}/".startswith(f"{mounted.target}/")
        if inside and (best is None or len(mounted.target) >= len(best.target)):
            best = mounted
    if best is None:
        return None
    rest = path[len(best.target.rstrip("/")) :]
    return best, (best.inner.rstrip("/") + rest) or "/"


def _plain(field: str) -> str:
    for escape, character in _ESCAPES:
        field = field.replace(escape, character)
    return field
