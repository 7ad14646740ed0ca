"""What `up` looks at before it starts anything: each a UserError that says what to do."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import random
import shutil
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from cacheop.api.errors import CacheopError, UserError
from cacheop.cli import control, mountinfo, view

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cacheop.api.dataset import Dataset

WORKER_LIBRARIES = ("arro3", "numpy", "obstore", "prometheus_client", "pyarrow", "xxhash")
TIERS = ("Disk",)
FUSE_DEVICE = Path("/dev/fuse")
EPHEMERAL_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")
FIRST_PORT = 16384


def missing_libraries() -> list[str]:
    """Modules that a worker imports and that are not installed."""
    return [n for n in WORKER_LIBRARIES if importlib.util.find_spec(n) is None]


def worker_libraries() -> None:
    """The worker's own dependencies are installed."""
    missing = missing_libraries()
    if missing:
        raise UserError(
            f"cache workers need {', '.join(missing)}, not installed here",
            hint="pip install 'cacheop[worker]'",
        )


def tiers(dataset: Dataset) -> None:
    """Every tier is one that the local mode knows."""
    for number, tier in enumerate(dataset.spec.cache.tiers):
        if tier.medium not in TIERS:
            raise UserError(
                f"Dataset {dataset.name}: spec.cache.tiers[{number}].medium {tier.medium} is not "
                "supported on one machine yet",
                hint=f"Use medium {' or '.join(TIERS)}",
            )


def cache_directories(roots: Sequence[Path], dataset: Dataset) -> None:
    """Every root can be made and written, and the quotas fit on their disk."""
    for root in roots:
        _writable(root)
    quota_bytes = len(roots) * sum(t.quota_bytes or 0 for t in dataset.spec.cache.tiers)
    disk_bytes = shutil.disk_usage(roots[0]).total
    if quota_bytes > disk_bytes:
        raise UserError(
            f"Dataset {dataset.name}: quota {view.size(quota_bytes)} is larger than the disk below "
            f"{roots[0]} ({view.size(disk_bytes)})",
            hint="Lower spec.cache.tiers[].quota, or name a larger disk with --cache",
        )


def _writable(root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=root):
            pass
    except OSError as error:
        raise UserError(
            f"the cache directory {root} cannot be written: {error.strerror}",
            hint="Name another one with --cache",
        ) from error


def free(root: Path) -> None:
    """No worker that this run directory does not know has `root`."""
    try:
        hello = control.ask_once(root, "hello")
    except CacheopError:
        return  # nobody there, as it should be
    raise UserError(
        f"the cache directory {root} is in use by another worker (pid {hello.get('pid')})",
        hint="Stop it, or name another cache directory with --cache",
    )


def may_mount() -> None:
    """We are root and the kernel has FUSE."""
    if os.geteuid() != 0:
        raise UserError(
            "--mount needs root",
            hint="Run as root, or leave --mount out and read cacheop:// with fsspec",
        )
    if not FUSE_DEVICE.exists():
        raise UserError(
            f"--mount needs {FUSE_DEVICE}, which is not here",
            hint="Load the fuse module, or give the container the device",
        )


def mount(target: Path, roots: Sequence[Path]) -> None:
    """`target` can be mounted at: an empty directory that nothing else is mounted at.

    The list of mounts is read first: looking into a mount whose server is dead hangs.
    """
    mounts = mountinfo.parse(mountinfo.PATH.read_text(errors="surrogateescape"))
    there = mountinfo.at(target, mounts)
    if there is not None and not mountinfo.is_ours(there, roots, mounts):
        raise UserError(
            f"{target} is already a mount ({there.type})", hint="Name another directory"
        )
    if there is not None:
        return  # what a killed holder left behind: the new one takes it away
    for root in roots:
        if target in (root, *root.parents) or root in target.parents:
            raise UserError(
                f"the mount {target} and the cache directory {root} are inside each other",
                hint="Name another directory with --mount",
            )
    try:
        target.mkdir(parents=True, exist_ok=True)
        if next(target.iterdir(), None) is not None:
            raise UserError(f"{target} is not empty", hint="Mount at an empty directory")
    except OSError as error:
        if isinstance(error, UserError):
            raise
        why = "it is not a directory" if target.is_file() else error.strerror
        raise UserError(
            f"cannot mount at {target}: {why}",
            hint="Name an empty directory with --mount, or one that can be made",
        ) from error


def address(option: str, text: str) -> tuple[str, int]:
    """(host, port) of `HOST:PORT`."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise UserError(f"{option} {text!r} is not HOST:PORT", hint="Like 127.0.0.1:0")
    return host, int(port)


def port(option: str, text: str) -> None:
    """Nobody listens at `HOST:PORT`; empty text and port 0 are always well."""
    if not text:
        return
    host, number = address(option, text)
    try:
        family, kind, _, _, at = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(at)
    except OSError as error:
        raise UserError(
            f"cannot listen on {option} {text}: {error.strerror or error}",
            hint="Name another one; port 0 picks a free one",
        ) from error


def free_ports(host: str, count: int) -> list[int]:
    """Ports at which nobody listens, and which the kernel gives no outgoing connection.

    A worker that is started again wants the same port, and one that a connection has meanwhile
    could not be listened on.
    """
    low = int(EPHEMERAL_PORTS.read_text().split()[0])
    outside = range(min(FIRST_PORT, low), low)
    # From a place of chance on: another `up` that looks at this moment looks elsewhere.
    begin = random.randrange(len(outside)) if outside else 0
    found: list[int] = []
    for number in (*outside[begin:], *outside[:begin]):
        if len(found) == count:
            break
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, number))
            found.append(number)
    if len(found) < count:
        raise UserError(
            f"no {count} free ports on {host} between {FIRST_PORT} and {low}",
            hint="Start fewer nodes, or end what listens there",
        )
    return found
