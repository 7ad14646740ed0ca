"""etcd, kube-apiserver and kube-controller-manager on loopback: Kubernetes without nodes.

Nodes and pods are objects that the test writes. The binaries are those of the test cluster.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Self

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cacheop/kubernetes"
START_SECONDS = 90.0
WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")
"""What is started ends with the test, however that ends."""
JSON = dict[str, Any]


def binary(name: str) -> Path | None:
    """Of the newest that was built."""
    return max(CACHE.glob(f"*/{name}"), default=None)


def missing() -> list[str]:
    """Programs that the test cluster has not built here."""
    return [name for name in ("etcd", "kube-apiserver") if binary(name) is None]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class ApiRefused(Exception):  # noqa: N818
    """The API server answered with an error."""

    def __init__(self, status: int, body: JSON) -> None:
        super().__init__(body.get("message") or str(status))
        self.status, self.body = status, body


class Client:
    """The API as one user; blocking."""

    def __init__(self, server: str, token: str) -> None:
        self.server, self.token = server, token
        self._tls = ssl.create_default_context()
        self._tls.check_hostname = False
        self._tls.verify_mode = ssl.CERT_NONE

    def call(
        self,
        method: str,
        path: str,
        body: JSON | list[JSON] | None = None,
        content: str = "application/json",
        accept: str = "application/json",
    ) -> JSON:
        request = urllib.request.Request(
            self.server + path,
            data=None if body is None else json.dumps(body).encode(),
            method=method,
            headers={
                "Authorization": f"Bearer {self.token}",
                "Content-Type": content,
                "Accept": accept,
            },
        )
        try:
            with urllib.request.urlopen(request, context=self._tls, timeout=30) as answer:
                found: JSON = json.loads(answer.read())
                return found
        except urllib.error.HTTPError as error:
            text = error.read()
            try:
                told = json.loads(text or b"{}")
            except ValueError:  # of a path that it does not serve yet
                told = {"message": text.decode()}
            raise ApiRefused(error.code, told) from error

    def get(self, path: str) -> JSON:
        return self.call("GET", path)

    def find(self, path: str) -> JSON | None:
        try:
            return self.get(path)
        except ApiRefused as error:
            if error.status == 404:
                return None
            raise

    def items(self, path: str) -> list[JSON]:
        found: list[JSON] = self.get(path)["items"]
        return found

    def create(self, path: str, body: JSON) -> JSON:
        return self.call("POST", path, body)

    def delete(self, path: str, **options: Any) -> None:
        try:
            self.call("DELETE", path, options or None)
        except ApiRefused as error:
            if error.status != 404:
                raise

    def merge(self, path: str, patch: JSON) -> JSON:
        return self.call("PATCH", path, patch, "application/merge-patch+json")

    def patch(self, path: str, *operations: JSON) -> JSON:
        return self.call("PATCH", path, list(operations), "application/json-patch+json")


class ControlPlane:
    """Runs the three; `token` of the admin, and of users with rights of their own."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="cacheop-plane-"))
        self.port, self.etcd_port, self.etcd_peer = free_port(), free_port(), free_port()
        self.server = f"https://127.0.0.1:{self.port}"
        self.admin = Client(self.server, "admin-token")
        self.operator = Client(self.server, "operator-token")
        self.has_controllers = binary("kube-controller-manager") is not None
        """Without them no pod is made, no claim bound and nothing collected."""
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        try:
            self._prepare()
            self._start("etcd", *self._etcd())
            self.start_api_server()
            if self.has_controllers:
                self._start("kube-controller-manager", *self._controllers())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.wait(20)
        shutil.rmtree(self.directory, ignore_errors=True)

    def start_api_server(self) -> None:
        """Start it and wait until it serves."""
        self._start("kube-apiserver", *self._api_server())
        wait_for(self._is_ready, START_SECONDS, "the API server is ready")

    def stop_api_server(self) -> None:
        """As if its machine went."""
        process = self._processes.pop("kube-apiserver")
        process.send_signal(signal.SIGKILL)
        process.wait(20)

    def kubeconfig(self, client: Client) -> Path:
        """A file to log in with as the user of `client`."""
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "c", "cluster": {"server": self.server, "insecure-skip-tls-verify": True}}
            ],
            "users": [{"name": "u", "user": {"token": client.token}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        path = self.directory / f"{client.token}.kubeconfig"
        path.write_text(json.dumps(document))
        return path

    def log(self, name: str) -> str:
        """The end of what a program wrote."""
        return (self.directory / f"{name}.log").read_text(errors="replace")[-4000:]

    def _is_ready(self) -> bool:
        process = self._processes["kube-apiserver"]
        assert process.poll() is None, self.log("kube-apiserver")
        try:
            self.admin.get("/api/v1/namespaces/default")
        except (OSError, ApiRefused, ValueError):
            return False
        return True

    def _start(self, name: str, *arguments: str) -> None:
        path = binary(name)
        assert path is not None
        with (self.directory / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [*WITH_US, path, *arguments], stdout=log, stderr=log, cwd=self.directory
            )

    def _prepare(self) -> None:
        key = self.directory / "accounts.key"
        subprocess.run(
            ["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True, timeout=60
        )
        tokens = 'admin-token,admin,admin,"system:masters"\noperator-token,operator,operator,\n'
        (self.directory / "tokens.csv").write_text(tokens)

    def _etcd(self) -> Iterable[str]:
        url, peer = (f"http://127.0.0.1:{port}" for port in (self.etcd_port, self.etcd_peer))
        return (
            f"--data-dir={self.directory / 'etcd'}",
            f"--listen-client-urls={url}",
            f"--advertise-client-urls={url}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
            "--log-level=error",
        )

    def _api_server(self) -> Iterable[str]:
        key = self.directory / "accounts.key"
        return (
            f"--etcd-servers=http://127.0.0.1:{self.etcd_port}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self.port}",
            f"--cert-dir={self.directory / 'certificates'}",
            f"--token-auth-file={self.directory / 'tokens.csv'}",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--authorization-mode=RBAC",
            "--disable-admission-plugins=ServiceAccount",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
            "--allow-privileged",
        )

    def _controllers(self) -> Iterable[str]:
        wanted = (
            "clusterrole-aggregation-controller",
            "daemonset-controller",
            "garbage-collector-controller",
            "namespace-controller",
            "persistentvolume-binder-controller",
            "persistentvolumeclaim-protection-controller",
            "persistentvolume-protection-controller",
            "resourcequota-controller",
        )
        return (
            f"--kubeconfig={self.kubeconfig(self.admin)}",
            f"--controllers={','.join(wanted)}",
            f"--service-account-private-key-file={self.directory / 'accounts.key'}",
            f"--cert-dir={self.directory / 'controller-certificates'}",
            "--bind-address=127.0.0.1",
            f"--secure-port={free_port()}",
            "--leader-elect=false",
            "--use-service-account-credentials=false",
        )


def wait_for(true: Callable[[], Any], seconds: float, what: str) -> Any:
    """What `true` gives once it is true; a failure that says what was waited for."""
    deadline = time.monotonic() + seconds
    while True:
        found = true()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.1)


def decoded(secret: JSON) -> dict[str, str]:
    """The values of a Secret."""
    return {k: base64.b64decode(v).decode() for k, v in (secret.get("data") or {}).items()}
