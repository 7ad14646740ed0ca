"""Which modes a mount can have on this machine, and which one `Auto` takes. Pure; the holder
decides by the same rules when it mounts, docs/mount.md explains them.
"""

from __future__ import annotations

from dataclasses import dataclass

from cacheop.cli import view

PASSTHROUGH_KERNEL = (6, 9)
IN_MEMORY = frozenset({"tmpfs", "ramfs"})
OVERLAY = "overlay"


@dataclass(frozen=True, slots=True)
class Machine:
    """What the choice depends on, besides the Dataset."""

    root: bool
    fuse: bool
    """/dev/fuse is here."""
    kernel: tuple[int, int]
    file_system: str
    """Type of the one that the cache lies on."""
    available_bytes: int
    """MemAvailable"""


def lacking(mode: str, machine: Machine) -> str:
    """Why `mode` cannot be had at all here; empty = it can."""
    if not machine.root:
        return "not root"
    if mode != "Native" and not machine.fuse:
        return "no /dev/fuse"
    if mode == "Passthrough" and machine.kernel < PASSTHROUGH_KERNEL:
        major, minor = machine.kernel
        return f"needs Linux {'.'.join(map(str, PASSTHROUGH_KERNEL))}, this is {major}.{minor}"
    if mode == "Passthrough" and machine.file_system == OVERLAY:
        return "the cache lies on overlayfs"
    return ""


def automatic(machine: Machine, total_bytes: int, *, complete: bool) -> tuple[str, str]:
    """(mode, why) of `Auto`, for a version of `total_bytes`."""
    if complete:
        return "Native", "every file is in the cache"
    size, memory = view.size(total_bytes), view.size(machine.available_bytes)
    if total_bytes > machine.available_bytes / 2:
        why = f"{size} is more than half of {memory} available memory"
    elif machine.file_system in IN_MEMORY:
        why = f"the cache lies in memory ({machine.file_system})"
    else:
        return "ZeroOpen", f"{size} of {memory} available memory"
    missing = lacking("Passthrough", machine)
    return ("Fuse", f"{why}; Passthrough: {missing}") if missing else ("Passthrough", why)


def rule(machine: Machine) -> str:
    """What `Auto` takes here, for any Dataset."""
    large = "Fuse" if lacking("Passthrough", machine) else "Passthrough"
    if machine.file_system in IN_MEMORY:
        return f"Auto takes Native when all is cached, else {large}"
    half = view.size(machine.available_bytes // 2)
    return (
        f"Auto takes Native when all is cached, else ZeroOpen up to {half} "
        f"(half of the available memory), else {large}"
    )
