"""What `doctor` looks at on this machine: one function a finding, none changes anything."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from cacheop.api.mount_modes import PASSTHROUGH_KERNEL, available_bytes, kernel_version
from cacheop.cli import checks, mount_modes, mountinfo, view

OK, WARN, FAIL = "OK", "WARN", "FAIL"

MODES = ("Native", "ZeroOpen", "Passthrough", "Fuse")
PYTHON = (3, 11)
LOW_SPACE_BYTES = 10 << 30
SLOW_WRITE_BYTES_PER_SECOND = 200e6
BLOCK_BYTES = 4 << 20
SPEED_FILE_BYTES = 512 << 20
SPEED_SECONDS = 0.9  # each way, so that doctor is done soon
LIBRARIES = ("fsspec", "s3fs", "obstore", "pyarrow", "numpy", "typer", "rich")
NETWORK_FILE_SYSTEMS = {
    "nfs", "nfs4", "cifs", "smb3", "ceph", "lustre", "glusterfs", "9p", "virtiofs", "beegfs",
    "fuse.sshfs", "fuse.s3fs", "fuse.glusterfs", "gpfs", "wekafs",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor."""

    level: str
    """OK, WARN or FAIL"""
    what: str
    found: str
    costs: str = ""
    """What it costs if nothing is done."""
    todo: str = ""

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        return asdict(self)


def versions() -> Finding:
    """Python and cacheop."""
    found = f"cacheop {_installed('cacheop')}, Python {platform.python_version()}"
    return Finding(OK, "versions", found)


def libraries() -> Finding:
    """What the worker imports is installed."""
    missing = checks.missing_libraries()
    found = ", ".join(f"{n} {v}" for n in LIBRARIES if (v := _installed(n)))
    if not missing:
        return Finding(OK, "libraries", found)
    return Finding(
        FAIL,
        "libraries",
        f"{', '.join(missing)} not installed; {found}",
        "no cache worker can run here, reading from one elsewhere works",
        "pip install 'cacheop[worker]'",
    )


def _installed(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def kernel(release: str = "") -> Finding:
    """New enough for FUSE passthrough."""
    release = release or platform.release()
    if kernel_version(release) >= PASSTHROUGH_KERNEL:
        return Finding(OK, "kernel", f"{release}, new enough for FUSE passthrough")
    return Finding(
        WARN,
        "kernel",
        f"{release}, without FUSE passthrough",
        "mounts of Datasets larger than half of the memory are slower (mode Fuse)",
        "Linux 6.9 or later has it",
    )


def machine(cache: Path) -> mount_modes.Machine:
    """What the mode of a mount depends on, for a cache below `cache`."""
    return mount_modes.Machine(
        root=os.geteuid() == 0,
        fuse=checks.FUSE_DEVICE.exists(),
        kernel=kernel_version(platform.release()),
        file_system=file_system_type(cache),
        available_bytes=available_bytes(Path("/proc/meminfo").read_text()),
    )


def modes(found: mount_modes.Machine) -> Finding:
    """Which modes a mount can have here, and which Auto takes."""
    what = "mount modes"
    missing = {mode: mount_modes.lacking(mode, found) for mode in MODES}
    possible = ", ".join(mode for mode in MODES if not missing[mode])
    without = "; ".join(f"not {mode}: {why}" for mode, why in missing.items() if why)
    if not possible:
        todo = "Run `cacheop up` as root for a mount"
        return Finding(WARN, what, "none: not root", "--mount does not work", todo)
    told = ". ".join(filter(None, (possible, without, mount_modes.rule(found))))
    return Finding(OK, what, told)


def fuse_device() -> Finding:
    """A mount can be made."""
    if not checks.FUSE_DEVICE.exists():
        return Finding(
            WARN,
            "FUSE",
            f"no {checks.FUSE_DEVICE}",
            "--mount does not work; reading cacheop:// with fsspec does",
            "modprobe fuse, or give the container the device",
        )
    return Finding(OK, "FUSE", str(checks.FUSE_DEVICE))


def user() -> Finding:
    """Only root may mount."""
    if os.geteuid() == 0:
        return Finding(OK, "user", "root, may mount")
    return Finding(
        WARN,
        "user",
        f"uid {os.geteuid()}, not root",
        "--mount does not work; reading cacheop:// with fsspec does",
        "Run `cacheop up` as root for a mount",
    )


def jemalloc() -> Finding:
    """The worker gives memory back."""
    places = ("/usr/lib/*/libjemalloc.so.2", "/usr/lib*/libjemalloc.so.2", "/usr/local/lib/libj*.2")
    for pattern in places:
        for path in Path("/").glob(pattern.lstrip("/")):
            return Finding(OK, "memory allocator", str(path))
    return Finding(
        WARN,
        "memory allocator",
        "no libjemalloc.so.2",
        "after a large fill a worker keeps about 50 MiB more",
        "apt install libjemalloc2",
    )


def existing_parent(path: Path) -> Path:
    """`path` or its nearest parent that exists."""
    return next((p for p in (path, *path.parents) if p.is_dir()), Path("/"))


def writable(directory: Path, existing: Path) -> Finding:
    """The cache directory can be written or made."""
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        return Finding(
            FAIL,
            "cache directory",
            f"{directory}: {error.strerror}",
            "`cacheop up` cannot start",
            "Name another one with --cache or CACHEOP_CACHE_DIR",
        )
    missing = "" if directory.is_dir() else ", made by the first `cacheop up`"
    return Finding(OK, "cache directory", f"{directory}{missing}")


def file_system(path: Path) -> Finding:
    """The cache lies on a local disk."""
    kind = file_system_type(path)
    costs = {
        "overlay": "slower, and gone with the container",
        "tmpfs": "the cache takes memory and is gone after a restart",
        "ramfs": "the cache takes memory without a bound",
    }.get(kind, "")
    if kind in NETWORK_FILE_SYSTEMS:
        costs = "every cached read goes over the network"
    if not costs:
        return Finding(OK, "cache file system", kind)
    return Finding(
        WARN, "cache file system", kind, costs, "Put the cache on a local disk with --cache"
    )


def file_system_type(path: Path) -> str:
    """The type of the file system that `path` lies on, from the kernel's list of mounts."""
    device = path.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for mount in mountinfo.parse(mountinfo.PATH.read_text(errors="surrogateescape")):
        if mount.device == wanted:
            return mount.type
    return "unknown"  # btrfs subvolumes have device numbers of their own


def free_space(path: Path) -> Finding:
    """There is room."""
    usage = shutil.disk_usage(path)
    found = f"{view.size(usage.free)} free of {view.size(usage.total)}"
    if usage.free >= LOW_SPACE_BYTES:
        return Finding(OK, "cache disk", found)
    return Finding(
        WARN, "cache disk", found, "little can be cached; the rest comes from the origin each time",
        "Free some, or name a larger disk with --cache",
    )  # fmt: skip


def disk_speed(path: Path) -> Finding:
    """Sequential writing and reading past the page cache, about a second each."""
    what = "cache disk speed"
    room_bytes = min(SPEED_FILE_BYTES, shutil.disk_usage(path).free // 4)
    try:
        with tempfile.TemporaryFile(dir=path, buffering=0) as file:
            written, write_seconds = _write(file.fileno(), room_bytes)
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            read, read_seconds = _read(file.fileno(), written)
    except OSError as error:
        return Finding(WARN, what, f"not measured: {error.strerror}")
    if not written or not read:
        return Finding(WARN, what, "not measured: the disk is full")
    speed = written / write_seconds
    found = f"writes {speed / 1e6:.0f} MB/s, reads {read / read_seconds / 1e6:.0f} MB/s"
    if speed >= SLOW_WRITE_BYTES_PER_SECOND:
        return Finding(OK, what, found)
    return Finding(
        WARN, what, found, f"the cache fills no faster than {speed / 1e6:.0f} MB/s",
        "Put the cache on NVMe with --cache",
    )  # fmt: skip


def _write(descriptor: int, room_bytes: int) -> tuple[int, float]:
    """(bytes on the disk, seconds). Random bytes: some disks compress."""
    block = os.urandom(BLOCK_BYTES)
    begin, done = time.monotonic(), 0
    while done + BLOCK_BYTES <= room_bytes and time.monotonic() - begin < SPEED_SECONDS:
        done += os.write(descriptor, block)
        # Else the page cache takes it all and the last fsync takes for ever.
        os.fdatasync(descriptor)
    return done, time.monotonic() - begin


def _read(descriptor: int, size_bytes: int) -> tuple[int, float]:
    buffer = bytearray(BLOCK_BYTES)
    begin, done = time.monotonic(), 0
    while done < size_bytes and time.monotonic() - begin < SPEED_SECONDS:
        done += os.preadv(descriptor, [buffer], done)
    return done, time.monotonic() - begin
