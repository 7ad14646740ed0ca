"""A real Redis on a host of the lab, with an ACL user who may touch the cluster's keys only."""

from __future__ import annotations

import secrets
import shutil
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.lab.network import Host

PORT = 6379
USER = "cacheop"
KEYS = "cacheop:default/data:"
START_SECONDS = 15.0


class LabRedis:
    """`members` is what CONFIG says of it. Start, kill and start again as often as you like."""

    def __init__(self, host: Host, directory: Path) -> None:
        self.host, self._directory = host, directory
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)
        password = directory / "password"
        password.write_text(secrets.token_hex(16))
        acl = directory / "users.acl"
        acl.write_text(
            "user default off\n"
            f"user {USER} on >{password.read_text()} ~{KEYS}* &{KEYS}* +@all -@dangerous\n"
        )
        self.members = {
            "url": f"redis://{USER}@{host.address}:{PORT}/0",
            "password_file": str(password),
            "prefix": KEYS,
        }
        self._command = [
            "redis-server", "--bind", host.address, "--port", str(PORT), "--save", "",
            "--appendonly", "no", "--dir", str(directory), "--aclfile", str(acl),
        ]  # fmt: skip

    def start(self) -> None:
        """Start it, empty, and wait until it answers."""
        with self.host.inside():
            with (self._directory / "redis.log").open("ab") as log:
                self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
            deadline = time.monotonic() + START_SECONDS
            while True:
                try:
                    socket.create_connection((self.host.address, PORT), 1).close()
                    return
                except OSError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL: what it knew is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def is_installed() -> bool:
    """Whether there is a redis-server."""
    return shutil.which("redis-server") is not None
