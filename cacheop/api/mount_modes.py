"""Which mode a mount takes, and why, in words for `status`. Pure; the holder decides by it."""

from __future__ import annotations

AUTO, NATIVE, ZERO_OPEN, PASSTHROUGH, FUSE = "Auto", "Native", "ZeroOpen", "Passthrough", "Fuse"
WISHES = (AUTO, NATIVE, ZERO_OPEN, PASSTHROUGH, FUSE)
MODES = WISHES[1:]
PASSTHROUGH_KERNEL = (6, 9)
IN_MEMORY = ("tmpfs", "ramfs")
OVERLAY = "overlay"
BIG_FILE_BYTES = 8 << 20
"""Files this big on average are better passed through: one OPEN is little beside them, and the
kernel reads 1.2 to 1.6 times faster from the cached file, with its large folios, than from the
pages of a FUSE mount (docs/decisions/mount-process.md)."""
_UNITS = ("KiB", "MiB", "GiB", "TiB")


class Facts:
    """What the choice depends on."""

    __slots__ = ("available_bytes", "bytes", "complete", "file_system", "kernel", "rows")

    def __init__(
        self,
        *,
        complete: bool,
        total_bytes: int,
        rows: int,
        available_bytes: int,
        file_system: str,
        kernel: tuple[int, int],
    ) -> None:
        self.complete = complete
        """Whether every file of the version is here."""
        self.bytes = total_bytes
        self.rows = rows
        """Files and directories."""
        self.available_bytes = available_bytes
        """MemAvailable of this machine."""
        self.file_system = file_system
        """Type of the one that the cache lies on."""
        self.kernel = kernel


def choose(wish: str, facts: Facts) -> tuple[str, str]:
    """(mode, why). A wish that cannot be met becomes what Auto takes, and why says so."""
    if wish == AUTO:
        return _automatic(facts)
    lacking = _lacking(wish, facts)
    if not lacking:
        return wish, "asked for"
    mode, why = _automatic(facts)
    return mode, f"{wish} was asked for, but {lacking}; {why}"


def _automatic(facts: Facts) -> tuple[str, str]:
    if facts.complete:
        return NATIVE, "every file is in the cache"
    size, memory = size_text(facts.bytes), size_text(facts.available_bytes)
    mean_bytes = facts.bytes // max(1, facts.rows)
    if mean_bytes >= BIG_FILE_BYTES and not _lacking(PASSTHROUGH, facts):
        return PASSTHROUGH, f"big files: {size_text(mean_bytes)} on average"
    if facts.bytes > facts.available_bytes / 2:
        what = f"{size} is more than half of {memory} available memory"
    elif facts.file_system in IN_MEMORY:
        what = f"the cache lies in memory ({facts.file_system})"
    else:
        return ZERO_OPEN, f"{size} of {memory} available memory"
    lacking = _lacking(PASSTHROUGH, facts)
    return (FUSE, f"{what}, and {lacking}") if lacking else (PASSTHROUGH, what)


def _lacking(mode: str, facts: Facts) -> str:
    """What `mode` needs and is not so; "": it can be had."""
    if mode == NATIVE and not facts.complete:
        return "not every file is in the cache"
    if mode == PASSTHROUGH and facts.kernel < PASSTHROUGH_KERNEL:
        return "Passthrough needs Linux 6.9, this is {}.{}".format(*facts.kernel)
    if mode == PASSTHROUGH and facts.file_system == OVERLAY:
        return "Passthrough cannot read from overlayfs, where the cache lies"
    return ""


def kernel_version(release: str) -> tuple[int, int]:
    """(6, 18) of "6.18.44-generic"; (0, 0) if it is not like that."""
    major, _, rest = release.partition(".")
    minor = ""
    for character in rest:
        if not character.isdigit():
            break
        minor += character
    return (int(major), int(minor)) if major.isdigit() and minor else (0, 0)


def available_bytes(meminfo: str) -> int:
    """MemAvailable of /proc/meminfo; 0 if it is not told."""
    for line in meminfo.splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def size_text(size_bytes: int) -> str:
    """As the command line says it: "512 B", "2.1 GiB"."""
    if size_bytes < 1024:
        return f"{size_bytes} B"
    size, unit = size_bytes / 1024, 0
    while size >= 1023.95 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.1f} {_UNITS[unit]}"
