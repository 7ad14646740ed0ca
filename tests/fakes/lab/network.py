"""A network of its own: hosts (network namespaces) on one switch (a bridge in a namespace), with
links that can be slowed, cut, made lossy or led through a forwarder while they are in use.

    with Lab(["a", "b"]) as lab:
        lab.host("a").shape(up_mbit=400, down_mbit=400)
        with lab.host("a").inside():     # sockets and processes made here are a's
            ...
        lab.host("b").drop(lab.host("a"), percent=30)
        lab.host("b").heal()

Addresses are 198.18.0.0/24 (for benchmarks, RFC 2544), seen by nobody outside. Names carry the
process id, so that runs side by side do not meet; what dead processes left is removed by the next.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from cacheop.api.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NAMESPACES = Path("/run/netns")
PREFIX = "cacheop-lab"
CLONE_NEWNET = 0x40000000
COMMAND_SECONDS = 20
END_SECONDS = 10.0
SWITCH = "switch"
# What tbf may send at once and may keep waiting: enough for the kernel's 64 KiB packets.
BURST_BYTES = 128 << 10
QUEUE_SECONDS = 0.04
LEAST_QUEUE_BYTES = 192 << 10

_libc = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count()


def missing() -> str:
    """Why no lab can be made here, "" when it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    wanted = {"ip": "iproute2", "tc": "iproute2", "nft": "nftables"}
    lacking = [package for tool, package in wanted.items() if not shutil.which(tool)]
    if lacking:
        return f"apt-get install {' '.join(sorted(set(lacking)))}"
    done = subprocess.run(["ip", "netns", "list"], check=False, capture_output=True, text=True)
    return f"no network namespaces here: {done.stderr.strip()}" if done.returncode else ""


class Host:
    """One machine of the lab. Its link is `eth0` inside and the port `port` on the switch."""

    def __init__(self, name: str, namespace: str, switch: str, number: int) -> None:
        self.name, self.namespace, self._switch = name, namespace, switch
        self.address = f"198.18.0.{number + 1}"
        self._port = f"port{number}"
        self._dropped: dict[str, int] = {}
        self._led: dict[int, int] = {}

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """This thread's new sockets and child processes are on this host."""
        with _namespace("/proc/thread-self/ns/net") as here, self._opened() as there:
            _enter(there)
            try:
                yield
            finally:
                _enter(here)

    def pids(self) -> list[int]:
        """Every process of this host."""
        with self._opened() as fd:
            about = os.fstat(fd)
        wanted = (about.st_dev, about.st_ino)
        found = []
        for entry in os.listdir("/proc"):
            with contextlib.suppress(OSError):
                if entry.isdigit():
                    about = os.stat(f"/proc/{entry}/ns/net")
                    if (about.st_dev, about.st_ino) == wanted:
                        found.append(int(entry))
        return [pid for pid in found if pid != os.getpid()]

    def kill(self) -> None:
        """SIGKILL all its processes, as often as new ones appear, and wait for their end."""
        deadline = time.monotonic() + END_SECONDS
        while pids := [pid for pid in self.pids() if not _is_zombie(pid)]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name}: {pids} do not end")
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)

    # -- the link ---------------------------------------------------------------------------------

    def shape(self, *, up_mbit: float, down_mbit: float) -> None:
        """How much leaves and reaches the host, in Mbit/s; 0 = as much as the kernel can."""
        _shape(self.namespace, "eth0", up_mbit)
        _shape(self._switch, self._port, down_mbit)

    def link(self, *, up: bool) -> None:
        """Pull the cable, or put it back. Connections are not told: packets are gone."""
        _run("ip", "-n", self._switch, "link", "set", self._port, "up" if up else "down")
        if up:
            _await_forwarding(self._switch, [self._port])

    def sent_bytes(self) -> int:
        """Everything that left the host, with headers and what was sent again."""
        command = ["ip", "-n", self._switch, "-s", "-j", "link", "show", self._port]
        (found,) = json.loads(_run(*command))
        return int(found["stats64"]["rx"]["bytes"])

    # -- faults -----------------------------------------------------------------------------------

    def drop(self, sender: Host | None = None, *, percent: int = 100) -> None:
        """Lose packets from `sender` (None = anybody) at random; what we send still goes out."""
        self._dropped[sender.address if sender else "198.18.0.0/24"] = percent
        self._apply()

    def lead(self, port: int, forwarder: int) -> None:
        """New connections from others to `port` reach `forwarder`, a port of this host."""
        self._led[port] = forwarder
        self._apply()

    def heal(self) -> None:
        """No loss, no forwarders; the link is up. The speed stays."""
        self._dropped, self._led = {}, {}
        self._apply()
        self.link(up=True)

    def _apply(self) -> None:
        losses = "".join(
            f"iifname eth0 ip saddr {who} {_chance(percent)} drop\n"
            for who, percent in self._dropped.items()
        )
        leads = "".join(
            f"tcp dport {port} redirect to :{forwarder}\n" for port, forwarder in self._led.items()
        )
        rules = (
            "flush ruleset\n"
            "table ip lab {\n"
            f"chain losses {{ type filter hook input priority 0\n{losses}}}\n"
            f"chain leads {{ type nat hook prerouting priority -100\n{leads}}}\n"
            "}\n"
        )
        with self.inside():
            _run("nft", "-f", "-", given=rules)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        with _namespace(NAMESPACES / self.namespace) as fd:
            yield fd


class Lab:
    """Makes the hosts on entry; on exit kills what runs on them and removes all."""

    def __init__(self, names: Sequence[str]) -> None:
        self.name = f"{PREFIX}.{os.getpid()}.{next(_numbers)}"
        self._switch = f"{self.name}.{SWITCH}"
        self.hosts = [
            Host(name, f"{self.name}.{name}", self._switch, number)
            for number, name in enumerate(names)
        ]

    def host(self, name: str) -> Host:
        """The host of that name."""
        return next(host for host in self.hosts if host.name == name)

    def heal(self) -> None:
        """Take back every fault but the speed of the links."""
        for host in self.hosts:
            host.heal()

    def __enter__(self) -> Self:
        if why := missing():
            raise UserError(f"no network namespaces: {why}", hint="Run as root, on Linux")
        sweep()
        try:
            self._make()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is left, whatever state it was in."""
        _remove(f"{self.name}.")

    def _make(self) -> None:
        lines = [f"netns add {name}" for name in [self._switch, *(h.namespace for h in self.hosts)]]
        lines += [
            f"link add {host._port} netns {self._switch} type veth peer name eth0 "
            f"netns {host.namespace}"
            for host in self.hosts
        ]
        _run("ip", "-batch", "-", given="\n".join(lines))
        lines = ["link add bridge type bridge forward_delay 0", "link set bridge up"]
        for host in self.hosts:
            lines += [f"link set {host._port} master bridge", f"link set {host._port} up"]
            inside = [
                "link set lo up",
                f"addr add {host.address}/24 dev eth0",
                "link set eth0 up",
            ]
            _run("ip", "-n", host.namespace, "-batch", "-", given="\n".join(inside))
        _run("ip", "-n", self._switch, "-batch", "-", given="\n".join(lines))
        _await_forwarding(self._switch, [host._port for host in self.hosts])


def sweep() -> None:
    """Remove the labs of processes that are no more."""
    for path in NAMESPACES.glob(f"{PREFIX}.*") if NAMESPACES.exists() else ():
        owner = path.name.split(".")[1]
        if not Path(f"/proc/{owner}").exists():
            _remove(f"{PREFIX}.{owner}.")


def _await_forwarding(switch: str, ports: Sequence[str]) -> None:
    """The switch uses a new link when the kernel has told it so: up to a second later."""
    deadline = time.monotonic() + END_SECONDS
    while True:
        links = json.loads(_run("ip", "-n", switch, "-d", "-j", "link", "show"))
        states = {
            link["ifname"]: link.get("linkinfo", {}).get("info_slave_data", {}).get("state")
            for link in links
        }
        if all(states.get(port) == "forwarding" for port in ports):
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"the switch does not use {ports}: {states}")
        time.sleep(0.02)


def _remove(prefix: str) -> None:
    for path in sorted(NAMESPACES.glob(f"{prefix}*")):
        with contextlib.suppress(OSError):  # another sweep was quicker
            Host(path.name, path.name, "", 0).kill()
        subprocess.run(
            ["ip", "netns", "del", path.name],
            check=False,
            capture_output=True,
            timeout=COMMAND_SECONDS,
        )


def _chance(percent: int) -> str:
    return f"numgen random mod 100 < {percent}" if percent < 100 else ""


def _shape(namespace: str, device: str, mbit: float) -> None:
    where = ("tc", "-n", namespace, "qdisc")
    if not mbit:
        subprocess.run(
            [*where, "del", "dev", device, "root"],
            check=False,  # there may be none
            capture_output=True,
            timeout=COMMAND_SECONDS,
        )
        return
    bytes_per_second = mbit * 1e6 / 8
    queue = max(LEAST_QUEUE_BYTES, int(bytes_per_second * QUEUE_SECONDS))
    burst = max(BURST_BYTES, int(bytes_per_second / 500))
    shape = ("tbf", "rate", f"{mbit * 1e6:.0f}bit", "burst", str(burst), "limit", str(queue))
    _run(*where, "replace", "dev", device, "root", *shape)


def _run(*command: str, given: str = "") -> str:
    done = subprocess.run(
        command,
        check=False,
        input=given,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
    )
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()} {given}")
    return done.stdout


@contextlib.contextmanager
def _namespace(path: str | Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _enter(fd: int) -> None:
    if _libc.setns(fd, CLONE_NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _is_zombie(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] in "ZX"
