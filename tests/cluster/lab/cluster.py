"""The whole cluster: up, mended, down."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import time
from typing import TYPE_CHECKING

from tests.cluster.lab import build, control, images, node, packages
from tests.cluster.lab.machines import run, sweep_cgroups, sweep_state
from tests.cluster.lab.network import CONTROL, MACHINES, NODES, wire
from tests.cluster.lab.places import KUBECONFIG, LOCK, TESTS_LOCK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

READY_SECONDS = 120.0
TURN_SECONDS = 1800.0
POLL_SECONDS = 0.25


def hindrance() -> str:
    """Why there can be no cluster on this machine; empty when there can."""
    if os.geteuid() != 0:
        return "the test cluster needs root: namespaces, mounts, a container runtime"
    if packages.lacking() and not shutil.which("apt-get"):
        return f"the test cluster needs Debian's {', '.join(packages.lacking())}"
    return build.lacks_go() if build.missing() else ""


def up() -> None:
    """Two ready nodes that have the pause image. What runs well is left alone."""
    if why := hindrance():
        raise RuntimeError(why)
    packages.require()
    build.build(build.missing())
    with _turn():
        if _is_well():
            return
        # What is half there is switched off and on again, as one would with real machines.
        for machine in MACHINES:
            machine.end()
        sweep_cgroups()
        try:
            _start()
        except BaseException:
            for machine in MACHINES:
                machine.end()
            raise


def down() -> None:
    """No process, mount, network or file of it is left. RuntimeError while tests run on it."""
    with _turn(), TESTS_LOCK.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError(f"tests run on the cluster: {TESTS_LOCK} is locked") from None
        for machine in MACHINES:
            machine.end()
        sweep_cgroups()
        sweep_state()


def take_turn_of_tests() -> None:
    """Wait until no other tests run on the cluster; from then on they wait for this process."""
    fd = os.open(TESTS_LOCK, os.O_WRONLY | os.O_CREAT, 0o600)
    deadline = time.monotonic() + TURN_SECONDS
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError(f"other tests keep the cluster: {TESTS_LOCK}") from None
            time.sleep(1)
        else:
            os.set_inheritable(fd, True)
            return


def kubectl(*arguments: str, given: str = "") -> str:
    """What kubectl prints, as the administrator."""
    return run(_kubectl(*arguments), given=given)


def _kubectl(*arguments: str) -> list[str]:
    kubectl = str(build.binary("kubectl"))
    return CONTROL.in_network(kubectl, f"--kubeconfig={KUBECONFIG}", *arguments)


def _start() -> None:
    for one in NODES:
        node.make_disk(one)
    for machine in MACHINES:
        machine.start()
    wire(NODES)
    control.prepare()
    CONTROL.run_daemons(control.daemons())
    for one in NODES:
        node.configure(one)
        one.machine.run_daemons(node.daemons(one))
    _until("the API server answers", _api_is_ready)
    for one in NODES:
        _until(f"containerd of {one.name} answers", lambda one=one: _containerd_answers(one))
        images.load_pause(one)
    _until("both nodes are ready", _nodes_are_ready)


def _is_well() -> bool:
    if not KUBECONFIG.exists() or not all(machine.pid for machine in MACHINES):
        return False
    for machine in MACHINES:
        for off in machine.directory.glob("*.off"):
            off.unlink()
    with contextlib.suppress(TimeoutError):
        _until("the API server answers", _api_is_ready, seconds=15)
        _until("both nodes are ready", _nodes_are_ready, seconds=30)
        return True
    return False


def _until(what: str, true: Callable[[], bool], *, seconds: float = READY_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            if true():
                return
        if time.monotonic() > deadline:
            logs = "\n".join(machine.log_tails() for machine in MACHINES)
            raise TimeoutError(f"waited {seconds:.0f} s until {what}, in vain\n{logs}")
        time.sleep(POLL_SECONDS)


def _api_is_ready() -> bool:
    return kubectl("get", "--raw", "/readyz").strip() == "ok"


def _containerd_answers(one: node.Node) -> bool:
    return bool(run(node.ctr(one, "version")))


def _nodes_are_ready() -> bool:
    found = json.loads(kubectl("get", "nodes", "--output=json"))["items"]
    ready = {
        item["metadata"]["name"]
        for item in found
        for condition in item["status"].get("conditions", [])
        if condition["type"] == "Ready" and condition["status"] == "True"
    }
    return ready >= {one.name for one in NODES}


@contextlib.contextmanager
def _turn() -> Iterator[None]:
    """Who starts or ends the cluster does so alone."""
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with LOCK.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
