"""Which mode a mount takes, and why, in words for `status`. Pure."""

from __future__ import annotations

AUTO, NATIVE, ZERO_OPEN, PASSTHROUGH, FUSE = "Auto", "Native", "ZeroOpen", "Passthrough", "Fuse"
WISHES = (AUTO, NATIVE, ZERO_OPEN, PASSTHROUGH, FUSE)
MODES = WISHES[1:]
PASSTHROUGH_KERNEL = (6, 9)
IN_MEMORY = ("tmpfs", "ramfs")
_UNITS = ("B", "kB", "MB", "GB", "TB")


class Facts:
    """What the choice depends on."""

    __slots__ = ("available_bytes", "bytes", "complete", "file_system", "kernel")

    def __init__(
        self,
        *,
        complete: bool,
        total_bytes: int,
        available_bytes: int,
        file_system: str,
        kernel: tuple[int, int],
    ) -> None:
        self.complete = complete
        """Whether every file of the version is here."""
        self.bytes = total_bytes
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
    if mode == PASSTHROUGH and facts.file_system == "overlay":
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
    """Two digits, as people say it: "2.1 GB", "24 GB"."""
    size, unit = float(size_bytes), 0
    while size >= 999.5 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.1f} {_UNITS[unit]}" if unit and size < 9.95 else f"{size:.0f} {_UNITS[unit]}"
