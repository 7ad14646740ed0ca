"""Nodes of a cluster: all processes of a worker on a host of the lab, and their shared settings."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from cacheop.api import names
from tests.fakes.running_worker import RunningWorker

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from tests.fakes.lab.network import Host

PEERS_PORT = 7000
FORWARDER_PORT = 7001
FORWARDER_SECONDS = 10


class LabNode(RunningWorker):
    """One node: its launcher and what that starts, with all of it on `host`."""

    def __init__(
        self, host: Host, directory: Path, mounts: list[dict[str, Any]], **config: Any
    ) -> None:
        super().__init__(directory, mounts, verb="run", node=host.name, **config)
        self.host = host

    @property
    def name(self) -> str:
        """The node's name, the host's too."""
        return self.host.name

    def launch(self) -> None:
        """Start it on its host and wait for nothing."""
        with self.host.inside():
            super().launch()

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples with these labels."""
        with self.host.inside():
            return super().metric(name, **labels)

    def kill(self) -> None:
        """SIGKILL to everything on the host at once, readers too: the machine is gone."""
        self.host.kill()
        if self.process:
            self.process.wait(10)

    def live_members(self) -> list[str]:
        """Whom it sees in the cluster, itself too."""
        return [member["node"] for member in self.status()["members"] if member["live"]]

    def wipe(self) -> None:
        """Kill it and take its cache away."""
        self.kill()
        shutil.rmtree(self.directory / "cache", ignore_errors=True)

    @property
    def version(self) -> str:
        """The newest version that it has, whether it runs or not."""
        found = sorted(
            (self.root / names.MANIFEST_DIR).glob("*.slots"),
            key=lambda path: path.stat().st_mtime_ns,
        )
        return found[-1].stem if found else ""

    @contextlib.contextmanager
    def interposed(self, *, delay_seconds: float = 0.0, flip_after: int = 0) -> Iterator[None]:
        """A man in the middle of new connections of peers to this node: see forwarder.py."""
        command = [sys.executable, "-m", "tests.fakes.lab.forwarder"]
        command += [f"{self.host.address}:{FORWARDER_PORT}", f"{self.host.address}:{PEERS_PORT}"]
        with (
            self.host.inside(),
            subprocess.Popen(
                [*command, str(delay_seconds), str(flip_after)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            ) as forwarder,
        ):
            try:
                assert forwarder.stdout
                if not forwarder.stdout.readline():
                    raise RuntimeError("the forwarder did not start; what it said is above")
                self.host.lead(PEERS_PORT, FORWARDER_PORT)
                yield
            finally:
                self.host.lead(PEERS_PORT, PEERS_PORT)
                forwarder.kill()


def cluster(
    hosts: Sequence[Host],
    directory: Path,
    mounts: list[dict[str, Any]],
    *,
    zones: Mapping[str, str] | None = None,
    redis: Mapping[str, str] | None = None,
    peers: bool = True,
    **config: Any,
) -> list[LabNode]:
    """Nodes that know each other, not started. `redis`: CONFIG's words instead of a fixed list.

    `peers=False`: nodes that know nobody.
    """
    directory.mkdir(parents=True, exist_ok=True)
    token = directory / "token"
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    zone_of = {host.name: (zones or {}).get(host.name, "") for host in hosts}
    fixed = [
        {"node": h.name, "address": f"{h.address}:{PEERS_PORT}", "zone": zone_of[h.name]}
        for h in hosts
    ]
    members: dict[str, Any] = {"redis": dict(redis)} if redis else {"static": fixed}

    def known(host: Host) -> dict[str, Any]:
        if not peers:
            return {}
        return {
            "zone": zone_of[host.name],
            "peers": f"{host.address}:{PEERS_PORT}",
            "members": members,
            "token_file": str(token),
        }

    return [LabNode(host, directory / host.name, mounts, **known(host), **config) for host in hosts]


@contextlib.contextmanager
def running(nodes: Sequence[LabNode]) -> Iterator[Sequence[LabNode]]:
    """All of them started, and ready; at the end none runs, and their caches are gone."""
    try:
        for node in nodes:
            node.launch()
        for node in nodes:
            node.wait_ready()
        yield nodes
    finally:
        for node in nodes:
            node.wipe()
