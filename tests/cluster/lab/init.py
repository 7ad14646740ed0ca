"""The first process of a machine of the lab, as systemd is on a real one: standard library only.

    python init.py DIRECTORY NAME

Runs in namespaces of its own (mounts, processes, network, host name), so all that the machine ever
started or mounted ends with it. Keeps the daemons of DIRECTORY/daemons.json running, each with its
log; while DIRECTORY/<daemon>.off exists that daemon is kept stopped.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

# What a machine sees of the one that it runs on; other mounts are none of its business, and a copy
# of them here would keep them busy.
SYSTEM_MOUNTS = ("/proc", "/sys", "/dev")
# Directories of a node that are its own, kept over its restarts. The rest of /var/lib is hidden.
KEPT = ("kubelet", "containerd", "cni")
# A file system of its own for the cache, as a node's NVMe is.
DISK, DISK_PLACE = "disk.img", Path("/var/lib/cacheop")
POLL_SECONDS = 0.1
RESTART_SECONDS = 0.5


def main() -> None:
    """Never ends by itself."""
    directory, name = Path(sys.argv[1]), sys.argv[2]
    socket.sethostname(name)
    own_mounts(directory)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    (directory / "logs").mkdir(exist_ok=True)
    (directory / "up").touch()
    keep_running(directory)


def own_mounts(directory: Path) -> None:
    """The machine's own /run and /var/lib, and nobody's mounts but the system's."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in reversed(points):
        if point != "/" and not point.startswith(SYSTEM_MOUNTS):
            subprocess.run(["umount", "--lazy", point.replace(r"\040", " ")], check=False)
    # As systemd has it; without it a CSI driver's mounts would not reach the pods.
    mount("--make-rshared", "/")
    for point in ("/run", "/var/lib", "/var/log"):
        mount("-t", "tmpfs", "tmpfs", point)
    for kept in KEPT:
        source, target = directory / kept, Path("/var/lib", kept)
        source.mkdir(exist_ok=True)
        target.mkdir()
        mount("--bind", str(source), str(target))
    if (disk := directory / DISK).exists():
        DISK_PLACE.mkdir()
        mount("-o", "loop", str(disk), str(DISK_PLACE))


def keep_running(directory: Path) -> None:
    """Start what should run and does not, kill what should not, bury the dead."""
    pids: dict[str, int] = {}
    not_before: dict[str, float] = {}
    while True:
        for pid in dead():
            for name in [name for name, running in pids.items() if running == pid]:
                del pids[name]
                not_before[name] = time.monotonic() + RESTART_SECONDS
        for name, daemon in wanted(directory).items():
            off = (directory / f"{name}.off").exists()
            if off and name in pids:
                os.kill(pids[name], signal.SIGKILL)
            elif not off and name not in pids and time.monotonic() >= not_before.get(name, 0):
                pids[name] = start(directory, name, daemon)
        time.sleep(POLL_SECONDS)


def wanted(directory: Path) -> dict[str, list[str]]:
    """Each daemon's command by its name; none until the network is there."""
    try:
        found: dict[str, list[str]] = json.loads((directory / "daemons.json").read_text())
    except FileNotFoundError:
        return {}
    return found


def start(directory: Path, name: str, command: list[str]) -> int:
    """The daemon's process id."""
    path = directory / "logs" / f"{name}.log"
    with path.open("a") as log:
        log.write(f"--- {time.strftime('%H:%M:%S')} {' '.join(command)}\n")
    # Not subprocess: it would bury some of our dead behind our back.
    return os.posix_spawn(
        command[0],
        command,
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(path), os.O_WRONLY | os.O_APPEND, 0),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )


def dead() -> list[int]:
    """Children that ended, daemons and orphans of pods alike."""
    found = []
    with contextlib.suppress(ChildProcessError):
        while (pid := os.waitpid(-1, os.WNOHANG)[0]) > 0:
            found.append(pid)
    return found


def mount(*arguments: str) -> None:
    """mount(8)."""
    subprocess.run(["mount", *arguments], check=True)


if __name__ == "__main__":
    main()
