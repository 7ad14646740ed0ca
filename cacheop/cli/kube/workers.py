"""top and evict against a cluster: its workers are asked through the API server's port-forward.

It takes the user's own rights: to read the Secret `cacheop` of the namespace, which has the control
token, to list its pods and to create pods/portforward.
"""

from __future__ import annotations

import base64
import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from cacheop.api import names
from cacheop.api.errors import CacheopError, NotFoundError, ProtocolError, WorkerUnavailable
from cacheop.cli import output, top, verbs
from cacheop.cli.control import Line
from cacheop.cli.kube import verbs as objects
from cacheop.cli.kube import view
from cacheop.cli.kube.access import Cluster
from cacheop.cli.output import Format
from cacheop.cli.top import HOT_FILES, SILENCE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Self

    from cacheop.cli.kube.place import Choice

PORT = 7071
AT_ONCE = 16
SECRET = "cacheop"  # noqa: S105 - a name


class Workers:
    """The workers of a Dataset; owns a line to each that answers, made when it is needed."""

    def __init__(self, cluster: Cluster, document: Mapping[str, Any]) -> None:
        metadata = document["metadata"]
        self.namespace: str = metadata["namespace"]
        self.name: str = metadata["name"]
        self._cluster = cluster
        self._token = _token(cluster, self.namespace, metadata["uid"])
        self._lines: dict[str, Line] = {}
        self._pods: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for line in self._lines.values():
            line.close()

    def statuses(self) -> list[dict[str, Any]]:
        """As top.Source."""
        self._look()
        return self._all(self._status, list(self._pods))

    def hot(self, running: set[str]) -> list[list[dict[str, Any]]]:
        """As top.Source."""

        def files(node: str) -> list[dict[str, Any]]:
            with contextlib.suppress(ProtocolError, WorkerUnavailable):
                found: list[dict[str, Any]] = self._ask(
                    node, "hot", SILENCE_SECONDS, count=HOT_FILES
                )["files"]
                return found
            return []

        return self._all(files, sorted(running))

    def evict(self, meta: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The answers of all nodes. WorkerUnavailable when one did not answer."""
        self._look()
        if not self._pods:
            raise WorkerUnavailable(
                f"no worker of {self.namespace}/{self.name} runs in {self._cluster}"
            )

        def evict(node: str) -> dict[str, Any]:
            return {"node": node} | self._ask(node, "evict", verbs.EVICT_SILENCE_SECONDS, **meta)

        return self._all(evict, list(self._pods))

    def _look(self) -> None:
        """Which pods there are now, by node."""
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        labels = view.affinity(self.name, self.namespace)["podAffinity"]
        term = labels["preferredDuringSchedulingIgnoredDuringExecution"][0]["podAffinityTerm"]
        selector = ",".join(f"{k}={v}" for k, v in term["labelSelector"]["matchLabels"].items())
        found = self._cluster.get(path, labelSelector=selector)["items"]
        pods = running_pods(found)
        for node in set(self._pods) - {n for n, pod in pods.items() if self._pods.get(n) == pod}:
            if line := self._lines.pop(node, None):
                line.close()
        self._pods = pods

    def _status(self, node: str) -> dict[str, Any]:
        try:
            return {"node": node} | self._ask(node, "status", SILENCE_SECONDS) | {"running": True}
        except WorkerUnavailable:
            return {"node": node, "running": False, "phase": "NotRunning"}

    def _ask(self, node: str, op: str, silence_seconds: float, **meta: Any) -> dict[str, Any]:
        line = self._lines.get(node)
        try:
            if line is None:
                pod = self._pods[node]
                sock = self._cluster.forward(self.namespace, pod, PORT)
                line = Line(sock, f"worker {pod}", names.CONTROL_OPS)
                self._lines[node] = line
                line.prove(self._token)
            return line.ask(op, silence_seconds=silence_seconds, **meta)
        except CacheopError:
            if broken := self._lines.pop(node, None):
                broken.close()
            raise

    def _all(self, call: Callable[[str], Any], nodes: Sequence[str]) -> list[Any]:
        if not nodes:
            return []
        with ThreadPoolExecutor(min(AT_ONCE, len(nodes))) as pool:
            return list(pool.map(call, nodes))


def running_pods(pods: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Node -> name of the worker's pod there that runs. Pure."""
    return {
        pod["spec"]["nodeName"]: pod["metadata"]["name"]
        for pod in pods
        if (pod.get("status") or {}).get("phase") == "Running"
        and pod["spec"].get("nodeName")
        and not pod["metadata"].get("deletionTimestamp")
    }


def _token(cluster: Cluster, namespace: str, uid: str) -> str:
    secret = cluster.get(f"/api/v1/namespaces/{namespace}/secrets/{SECRET}")
    found = (secret.get("data") or {}).get(f"{uid}.control")
    if not found:
        raise NotFoundError(
            f"Secret {namespace}/{SECRET} has no token of this Dataset yet",
            hint="The operator writes it; `cacheop status` shows how it is",
        )
    return base64.b64decode(found).decode().strip()


def watch(choice: Choice, name: str, count: int | None, fmt: Format) -> int:
    """`cacheop top`."""
    cluster = Cluster(choice)
    document = objects.document(cluster, name)
    output.note(view.subject(view.summary(document, cluster.name, cluster.server)), fmt)
    with Workers(cluster, document) as workers:
        return top.watch(workers, count, fmt)


def evict(
    choice: Choice, name: str, paths: Sequence[str], version: str, fmt: Format, *, yes: bool
) -> int:
    """`cacheop evict`."""
    meta = verbs.evict_meta(paths, version)
    cluster = Cluster(choice)
    document = objects.document(cluster, name)
    of = view.summary(document, cluster.name, cluster.server)
    output.note(view.subject(of), fmt)
    what = verbs.evicted_of(paths, version)
    where = f"{of['namespace']}/{of['dataset']} in cluster {cluster.name}"
    output.confirm(f"throw away what is cached of {what} in {where}", yes=yes)
    with Workers(cluster, document) as workers:
        answers = workers.evict(meta)
    if fmt is Format.JSON:
        facts = {key: of[key] for key in ("cluster", "dataset", "namespace")}
        output.print_json(facts | {"nodes": answers})
    else:
        verbs.tell_evicted(answers)
    return 0
