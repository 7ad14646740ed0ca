"""A node of Kubernetes without Kubernetes: the kubelet's side of CSI over real gRPC, the node
plugin as a real process, and worker pods: real supervisors as uid 65532 in a mount namespace of
their own, without capabilities, on a read-only root.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from cache_worker.csi import csi_pb2 as csi
from cache_worker.csi import registration_pb2 as registration
from cache_worker.csi.wishes import EPHEMERAL, POD_NAMESPACE
from cache_worker.holder import mounting, syscalls, worker_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

REPOSITORY = Path(__file__).parents[2]
USER = 65532
DRIVER = "cacheop.io"
START_SECONDS = 40.0


class Kubelet:
    """A node: directories, the node plugin's process, and calls as the kubelet makes them."""

    def __init__(self, *cache_dirs: str) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="cacheop-node-"))
        self.path.chmod(0o755)
        self.directory = self.path / "kubelet"
        self.cache_dirs = [self.path / name for name in cache_dirs or ("cache",)]
        for path in (self.directory, *self.cache_dirs):
            path.mkdir()
        self.lists = self.path / "datasets.json"
        self.log = self.path / "node.log"
        self.plugin: subprocess.Popen[bytes] | None = None
        self.pods: list[WorkerPod] = []
        self._channel: grpc.Channel | None = None

    @property
    def socket(self) -> Path:
        return self.directory / "plugins" / DRIVER / "csi.sock"

    # -- the node plugin's process ----------------------------------------------------------------

    def start(self) -> float:
        """Seconds until the node plugin was registered and ready."""
        started = time.monotonic()
        with self.log.open("ab") as log:
            self.plugin = subprocess.Popen(
                [
                    *(sys.executable, "-m", "cache_worker", "node", "--node", "node-a"),
                    *("--kubelet-dir", str(self.directory), "--allow-root-disk"),
                    *(word for path in self.cache_dirs for word in ("--cache-dir", str(path))),
                    *("--datasets", str(self.lists)),
                ],
                cwd=REPOSITORY,
                stderr=log,
            )
        wait_for(self.is_ready, START_SECONDS, self.tail)
        return time.monotonic() - started

    def is_ready(self) -> bool:
        assert self.plugin is not None
        assert self.plugin.poll() is None, self.tail()
        done = subprocess.run(
            [sys.executable, "-m", "cache_worker", "node-ready", str(self.directory)],
            cwd=REPOSITORY,
            check=False,
            capture_output=True,
        )
        return done.returncode == 0

    def kill(self, number: int = signal.SIGKILL) -> int:
        assert self.plugin is not None
        self.plugin.send_signal(number)
        return self.plugin.wait(20)

    def tail(self) -> str:
        return self.log.read_text()[-3000:]

    # -- calls ------------------------------------------------------------------------------------

    def call(self, method: str, request: Any, answer: Any, seconds: float = 30.0) -> Any:
        """`method` = csi.v1.Node/NodePublishVolume and so on."""
        with grpc.insecure_channel(f"unix://{self.socket}") as channel:
            ask = channel.unary_unary(
                f"/{method}",
                request_serializer=type(request).SerializeToString,
                response_deserializer=answer.FromString,
            )
            return ask(request, timeout=seconds, wait_for_ready=True)

    def target(self, pod: str, volume: str = "data") -> Path:
        return self.directory / "pods" / pod / "volumes/kubernetes.io~csi" / volume / "mount"

    def publish(
        self,
        pod: str,
        attributes: Mapping[str, str],
        *,
        namespace: str = "vision",
        volume: str = "data",
        inline: bool = True,
        seconds: float = 30.0,
    ) -> Path:
        """As the kubelet does; the path that the pod would see."""
        target = self.target(pod, volume)
        target.parent.mkdir(parents=True, exist_ok=True)
        info = {EPHEMERAL: "true" if inline else "false", POD_NAMESPACE: namespace}
        capability = csi.VolumeCapability(mount=csi.VolumeCapability.MountVolume())
        request = csi.NodePublishVolumeRequest(
            volume_id=f"csi-{pod}-{volume}",
            target_path=str(target),
            volume_capability=capability,
            readonly=True,
            volume_context={**attributes, **info},
        )
        self.call("csi.v1.Node/NodePublishVolume", request, csi.NodePublishVolumeResponse, seconds)
        return target

    def publish_in_the_end(self, pod: str, attributes: Mapping[str, str], **more: Any) -> Path:
        """Again and again, as the kubelet does."""
        deadline = time.monotonic() + 60
        while True:
            try:
                return self.publish(pod, attributes, **more)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def refusal(self, pod: str, attributes: Mapping[str, str], **more: Any) -> tuple[str, str]:
        """(code, words) of a publish that must fail."""
        try:
            self.publish(pod, attributes, **more)
        except grpc.RpcError as error:
            return error.code().name, error.details()
        raise AssertionError("it was published")

    def unpublish(self, pod: str, volume: str = "data", seconds: float = 30.0) -> None:
        request = csi.NodeUnpublishVolumeRequest(
            volume_id=f"csi-{pod}-{volume}", target_path=str(self.target(pod, volume))
        )
        answer = csi.NodeUnpublishVolumeResponse
        self.call("csi.v1.Node/NodeUnpublishVolume", request, answer, seconds)

    def stats(self, pod: str, volume: str = "data") -> csi.NodeGetVolumeStatsResponse:
        request = csi.NodeGetVolumeStatsRequest(
            volume_id=f"csi-{pod}-{volume}", volume_path=str(self.target(pod, volume))
        )
        answer = csi.NodeGetVolumeStatsResponse
        return self.call("csi.v1.Node/NodeGetVolumeStats", request, answer)

    def registered(self) -> registration.PluginInfo:
        """What the plugin tells the kubelet's plugin watcher."""
        socket = self.directory / "plugins_registry" / f"{DRIVER}-reg.sock"
        with grpc.insecure_channel(f"unix://{socket}") as channel:
            ask = channel.unary_unary(
                "/pluginregistration.Registration/GetInfo",
                request_serializer=registration.InfoRequest.SerializeToString,
                response_deserializer=registration.PluginInfo.FromString,
            )
            return ask(registration.InfoRequest(), timeout=10)

    # -- what there is ----------------------------------------------------------------------------

    def worker(self, name: str, mounts: list[dict[str, Any]], **more: Any) -> WorkerPod:
        """A worker pod with its volume, started."""
        pod = WorkerPod(self, name, mounts, **more)
        self.pods.append(pod)
        pod.start()
        return pod

    def mounted(self) -> list[tuple[str, str]]:
        """(target, type) of every mount below the kubelet's directory."""
        return [
            (mounted.target, mounted.kind)
            for mounted in mounting.read_mounts()
            if mounted.target.startswith(f"{self.directory}/")
        ]

    def close(self) -> None:
        for pod in self.pods:
            pod.stop()
        if self.plugin is not None and self.plugin.poll() is None:
            self.kill()
        for mounted in reversed(mounting.read_mounts()):
            if mounted.target.startswith(f"{self.path}/"):
                with contextlib.suppress(OSError):
                    syscalls.detach(mounted.target)
        shutil.rmtree(self.path, ignore_errors=True)


class WorkerPod:
    """What the operator gives a worker's pod, as directories, and the pod's process."""

    numbers = iter(range(1, 1 << 16))

    def __init__(
        self,
        kubelet: Kubelet,
        name: str,
        mounts: list[dict[str, Any]],
        *,
        namespace: str = "vision",
        uid: str = "",
        spec: Mapping[str, Any] | None = None,
        secrets: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        number = next(self.numbers)
        self.kubelet, self.name, self.namespace = kubelet, name, namespace
        self.uid = uid or f"0000-{number}"
        self.pod = f"worker-{namespace}-{name}-{self.uid}"
        self.path = kubelet.path / self.pod
        self.ip = f"127.{7 + number // 250 % 200}.{os.getpid() % 250}.{1 + number % 250}"
        self.log = self.path / "log"
        for part in ("config", "token", "secrets", "run", "tmp"):
            (self.path / part).mkdir(parents=True)
            shutil.chown(self.path / part, USER, USER)
        for secret, values in (secrets or {}).items():
            for key, value in values.items():
                path = self.path / "secrets" / secret / key
                path.parent.mkdir(exist_ok=True)
                path.write_text(value)
        (self.path / "token/control").write_text(hashlib.sha256(self.uid.encode()).hexdigest())
        self.document: dict[str, Any] = {
            "apiVersion": "cacheop.io/v1alpha1",
            "kind": "Dataset",
            "metadata": {"name": name, "namespace": namespace, "uid": self.uid},
            "spec": {"mounts": mounts, **(spec or {})},
        }
        self.configure()
        self.process: subprocess.Popen[bytes] | None = None

    def configure(self, **spec: Any) -> None:
        """Write the ConfigMap, with these fields of the spec changed."""
        self.document["spec"].update(spec)
        worker = {"zones": {"node-a": "zone-1"}, "redis": None, "version": "", "suspend": False}
        for name, content in (("dataset.json", self.document), ("worker.json", worker)):
            new = self.path / "config" / f".{name}"
            new.write_text(json.dumps(content))
            new.replace(self.path / "config" / name)

    @property
    def root(self) -> Path:
        """The directory on the node."""
        for cache_dir in self.kubelet.cache_dirs:
            path = cache_dir / self.namespace / self.name / self.uid
            if path.exists():
                return path
        raise AssertionError("it has no directory")

    @property
    def volume(self) -> Path:
        return self.kubelet.target(self.pod, "cache")

    def start(self) -> None:
        attributes = {"cache": self.name, "uid": self.uid}
        self.kubelet.publish(self.pod, attributes, namespace=self.namespace, volume="cache")
        environment = {
            "PATH": os.environ["PATH"],
            "CACHEOP_NODE": "node-a",
            "CACHEOP_POD_IP": self.ip,
            "CACHEOP_CACHE": str(self.volume),
            "CACHEOP_CONFIG": str(self.path / "run/config.json"),
            "CACHEOP_CONFIG_DIR": str(self.path / "config"),
            "CACHEOP_TOKEN_DIR": str(self.path / "token"),
            "CACHEOP_SECRETS_DIR": str(self.path / "secrets"),
            "TMPDIR": str(self.path / "tmp"),
            "HOME": str(self.path / "tmp"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                ["unshare", "--mount", "--propagation", "private", "sh", "-ec", self._script()],
                cwd="/",
                env=environment,
                stdout=log,
                stderr=log,
            )

    def _script(self) -> str:
        """Into what a container is: own mounts, read-only but for volumes, no rights."""
        home = f"{self.path}/home"
        lines = [f"mkdir {home}"] if not os.path.exists(home) else []
        hidden = [
            p for p in (sys.base_prefix, sys.prefix, str(REPOSITORY)) if p.startswith("/root/")
        ]
        if hidden:  # root's home lets nobody in; what is needed of it is shown at its place
            lines += [f"mount --rbind /root {home}", "mount -t tmpfs -o mode=755 tmpfs /root"]
            for path in hidden:
                lines += [
                    f"mkdir -p {path}",
                    f"mount --rbind {home}/{path.removeprefix('/root/')} {path}",
                ]
        writable = (self.volume, self.path / "run", self.path / "tmp")
        lines += [f"mount --rbind {path} {path}" for path in writable[1:]]
        lines += ["mount -o remount,bind,ro /"]
        rights = "--clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all"
        become = f"setpriv --reuid {USER} --regid {USER} {rights}"
        lines += [f"exec {become} {sys.executable} -P -m cache_worker pod"]
        return "\n".join(lines)

    def ask(self, op: str, seconds: float = 10.0, **meta: Any) -> dict[str, Any]:
        """A question to worker.sock."""
        root = os.open(self.root, os.O_PATH)
        try:
            return worker_line.ask(root, {"op": op, **meta}, time.monotonic() + seconds)
        finally:
            os.close(root)

    def wait_ready(self, seconds: float = 60.0) -> None:
        def ready() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.tail()
            try:
                return bool(self.ask("health")["ready"])
            except OSError:
                return False

        wait_for(ready, seconds, self.tail)

    def pids(self, verb: str) -> list[int]:
        """The processes of this pod that run that verb of cache_worker."""
        assert self.process is not None
        found, waiting = [], [self.process.pid]
        while waiting:
            pid = waiting.pop()
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
                if "cache_worker" in words and words[words.index("cache_worker") + 1] == verb:
                    found.append(pid)
                for task in Path(f"/proc/{pid}/task").iterdir():
                    waiting += map(int, (task / "children").read_text().split())
        return found

    def kill(self, verb: str) -> None:
        for pid in self.pids(verb):
            os.kill(pid, signal.SIGKILL)

    def tail(self) -> str:
        return self.log.read_text()[-3000:] + self.kubelet.tail()

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(5)
                raise

    def remove(self) -> None:
        """The pod is deleted."""
        self.stop()
        self.kubelet.unpublish(self.pod, "cache")


def wait_for(
    condition: Callable[[], object], seconds: float = 40.0, say: Callable[[], str] = lambda: ""
) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {say()}"
        time.sleep(0.02)
