"""The node plugin's process: `python -m cache_worker node --node NAME --cache-dir DIRECTORY …`.

Privileged; no network, no API, no Secrets. It may be killed at any time: mounts stay, their fds are
the supervisors' too, and it takes them back before it says that it is ready.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import signal
import sys
import threading
import time

from cache_worker.csi import csi_pb2, registration_pb2
from cache_worker.csi.directories import Directories
from cache_worker.csi.places import Places
from cache_worker.csi.publishing import Volumes
from cache_worker.csi.service import (
    DRIVER,
    Identity,
    Node,
    Registration,
    handlers,
    serve,
)
from cache_worker.csi.upkeep import Upkeep
from cache_worker.holder import mounting
from cacheop.api.errors import CacheopError, UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cache_worker.csi.places import HeldPlace

RECALL_SECONDS = 10.0
"""How long supervisors are waited for. One that is away longer has lost its fds most likely."""
POLL_SECONDS = 0.05
STOP_SECONDS = 2.0


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m cache_worker node")
    parser.add_argument("--kubelet-dir", default="/var/lib/kubelet", help="its --root-dir")
    parser.add_argument("--node", required=True, help="the node's name")
    parser.add_argument("--cache-dir", action="append", required=True, help="may be repeated")
    parser.add_argument("--datasets", default="", help="file with the list of Datasets there are")
    parser.add_argument(
        "--allow-root-disk",
        action="store_true",
        help="let a cache dir lie on the kubelet's own file system",
    )
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Exit code 0 after a signal, 2 for bad input, 1 when it cannot work."""
    os.umask(0o022)
    try:
        code = run(parse(arguments))
    except CacheopError as error:
        log(str(error))
        code = error.exit_code
    sys.stderr.flush()
    os._exit(code)  # mounts on their way have threads, which are not waited for


def run(options: argparse.Namespace) -> int:
    """Until a signal."""
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    mounting.check_possible()
    kubelet_dir = os.path.realpath(options.kubelet_dir)
    directories = Directories(options.cache_dir)
    check_disks(directories, kubelet_dir, allow_root_disk=options.allow_root_disk)
    places = Places(log)
    upkeep = Upkeep(directories, places, options.datasets, log)
    plugin_dir = f"{kubelet_dir}/plugins/{DRIVER}"
    shared = f"{plugin_dir}/mounts"
    os.makedirs(shared, mode=0o750, exist_ok=True)
    volumes = Volumes(directories, places, shared, lambda: upkeep.generation, log)
    recall(directories, places)
    identity = Identity(importlib.metadata.version("cacheop"), lambda: not ending.is_set())
    node = Node(options.node, kubelet_dir, volumes, directories, places)
    registration = Registration(f"{plugin_dir}/csi.sock", log)
    services = [
        handlers("Identity", csi_pb2, identity, log),
        handlers("Node", csi_pb2, node, log),
    ]
    server = serve(f"{plugin_dir}/csi.sock", services)
    registry = f"{kubelet_dir}/plugins_registry"
    os.makedirs(registry, exist_ok=True)
    register = [handlers("Registration", registration_pb2, registration, log)]
    registrar = serve(f"{registry}/{DRIVER}-reg.sock", register, threads=1)
    log(f"the node plugin of {options.node} is up, {len(places.all())} Datasets")
    while not ending.is_set() and not registration.refused.is_set():
        upkeep.run()
        volumes.sweep()
        ending.wait(upkeep.SECONDS)
    registrar.stop(None)
    server.stop(STOP_SECONDS).wait(STOP_SECONDS)
    places.close()
    return 1 if registration.refused.is_set() else 0


def check_disks(directories: Directories, kubelet_dir: str, *, allow_root_disk: bool) -> None:
    """UserError for a cache dir on the kubelet's disk: filling that evicts all pods of the node."""
    root = os.stat(kubelet_dir).st_dev
    for path, fd in directories.roots.items():
        if os.fstat(fd).st_dev == root and not allow_root_disk:
            raise UserError(
                f"the cache dir {path} lies on the kubelet's own file system",
                hint="Give it a disk of its own, or set node.allowRootDisk of the chart",
            )


def recall(directories: Directories, places: Places) -> None:
    """Hold the mounts of all Datasets there are, as far as their supervisors are there."""
    held = []
    for directory in directories.all():
        try:
            held.append(places.hold(directory))
        except OSError as error:
            log(f"cannot open {directory.path}: {error}")
    deadline = time.monotonic() + RECALL_SECONDS
    while (missing := [h for h in held if not _has_all(h)]) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    for one in missing:
        log(f"nobody gives the mounts of {one.directory.path} back yet")


def _has_all(held: HeldPlace) -> bool:
    try:
        return held.has_all()
    except OSError:
        return False


def log(line: str) -> None:
    """One line on stderr. A log that fails must end nobody who serves."""
    try:
        sys.stderr.write(f"{time.strftime('%FT%TZ', time.gmtime())} cacheop node: {line}\n")
        sys.stderr.flush()
    except OSError:
        return
