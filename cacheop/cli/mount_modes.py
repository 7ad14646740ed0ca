"""Which modes a mount can have on this machine, and which one `Auto` takes. Pure.

The rules are cacheop/api/mount_modes.py, by which the holder decides; docs/mount.md explains them.
"""

from __future__ import annotations

from dataclasses import dataclass

from cacheop.api import mount_modes
from cacheop.api.mount_modes import IN_MEMORY, OVERLAY, PASSTHROUGH_KERNEL
from cacheop.cli import view


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


def automatic(machine: Machine, total_bytes: int, rows: int, *, complete: bool) -> tuple[str, str]:
    """(mode, why) of `Auto`, for a version of `total_bytes` in `rows` files and directories."""
    return mount_modes.choose(
        mount_modes.AUTO,
        mount_modes.Facts(
            complete=complete,
            total_bytes=total_bytes,
            rows=rows,
            available_bytes=machine.available_bytes,
            file_system=machine.file_system,
            kernel=machine.kernel,
        ),
    )


def rule(machine: Machine) -> str:
    """What `Auto` takes here, for any Dataset."""
    large = "Fuse" if lacking("Passthrough", machine) else "Passthrough"
    if machine.file_system in IN_MEMORY:
        return f"Auto takes Native when all is cached, else {large}"
    half = view.size(machine.available_bytes // 2)
    return (
        f"Auto takes Native when all is cached, else ZeroOpen for files below 8 MiB and up to "
        f"{half} (half of the available memory), else {large}"
    )
