"""The API of a cluster as JSON, with the user's own rights. The kubernetes client loads late."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from cacheop.api.errors import CacheopError, NotFoundError, UserError, WorkerUnavailable
from cacheop.api.names import API_GROUP, API_VERSION
from cacheop.cli.kube import place

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from cacheop.cli.kube.place import Choice

CALL_SECONDS = 15.0
FIELD_MANAGER = "cacheop-cli"
DATASETS, DATALOADS = "datasets", "dataloads"
_JSON, _MERGE = "application/json", "application/merge-patch+json"


class Cluster:
    """Owns a connection pool. `name` and `server` say which cluster it is."""

    def __init__(self, choice: Choice) -> None:
        client, self.name, context_namespace = _connect(choice)
        from urllib3 import disable_warnings, exceptions

        # Where a kubeconfig says insecure-skip-tls-verify, its owner knows.
        disable_warnings(exceptions.InsecureRequestWarning)
        self._client = client
        configuration = client.configuration
        self.server = str(configuration.host).rstrip("/")
        self.asked_namespace = choice.namespace
        self.namespace = choice.namespace or context_namespace
        self._refresh, self._auth = configuration.refresh_api_key_hook, configuration.auth_settings
        self._configuration = configuration

    def __str__(self) -> str:
        return f"cluster {self.name} ({self.server})"

    def get(self, path: str, **query: str) -> dict[str, Any]:
        """An object or a list. NotFoundError, UserError, CacheopError, WorkerUnavailable."""
        return self._call("GET", path, query)

    def find(self, path: str, **query: str) -> dict[str, Any] | None:
        """The same; None when it is not there."""
        try:
            return self.get(path, **query)
        except NotFoundError:
            return None

    def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """A new object."""
        return self._call("POST", path, {"fieldManager": FIELD_MANAGER}, body, _JSON)

    def merge(self, path: str, patch: Mapping[str, Any]) -> dict[str, Any]:
        """A merge patch."""
        return self._call("PATCH", path, {"fieldManager": FIELD_MANAGER}, patch, _MERGE)

    def forward(self, namespace: str, pod: str, port: int) -> socket.socket:
        """A stream to a port of a pod; close it to end it. WorkerUnavailable, CacheopError."""
        from kubernetes import stream
        from kubernetes.client import CoreV1Api
        from kubernetes.client.rest import ApiException

        connect = CoreV1Api(self._client).connect_get_namespaced_pod_portforward
        try:
            tunnel = stream.portforward(connect, pod, namespace, ports=str(port))
        except ApiException as error:
            if error.status in (401, 403) or "403" in str(error.reason):
                raise CacheopError(
                    f"no right to reach pod {namespace}/{pod} in {self}",
                    hint="It takes `create` (and `get`) on pods/portforward",
                ) from error
            raise WorkerUnavailable(f"pod {namespace}/{pod}: {error.reason}") from error
        found: socket.socket = tunnel.socket(port)
        return found

    def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Mapping[str, Any] | None = None,
        content: str = "",
    ) -> dict[str, Any]:
        import urllib3

        if self._refresh is not None:
            self._refresh(self._configuration)
        headers = {"Accept": _JSON} | ({"Content-Type": content} if content else {})
        headers |= {a["key"]: a["value"] for a in self._auth().values() if a["in"] == "header"}
        url = f"{self.server}{path}" + (f"?{urlencode(query)}" if query else "")
        try:
            answer = self._client.rest_client.pool_manager.request(
                method,
                url,
                body=None if body is None else json.dumps(body),
                headers={name: value for name, value in headers.items() if value},
                timeout=urllib3.Timeout(total=CALL_SECONDS),
                retries=False,
            )
        except urllib3.exceptions.HTTPError as error:
            raise WorkerUnavailable(
                f"{self} does not answer: {error}",
                hint="Is it the right one? `kubectl config get-contexts`; --context names another",
            ) from error
        if answer.status >= 400:
            raise refusal(answer.status, answer.data, f"{method} {path}", str(self))
        found: dict[str, Any] = json.loads(answer.data)
        return found


def refusal(status: int, body: bytes, what: str, where: str) -> CacheopError:
    """What the API server's refusal is for the user. Pure."""
    try:
        told = json.loads(body)
        message, kind = str(told.get("message") or ""), (told.get("details") or {}).get("kind")
    except (ValueError, AttributeError):
        message, kind = body[:200].decode(errors="replace").strip(), ""
    if status == 404 and not kind and f"/apis/{API_GROUP}/" in what:
        return NotFoundError(
            f"{where} has no Datasets: cacheop is not installed there",
            hint="helm install cacheop …, see docs/kubernetes.md; first `cacheop doctor --cluster`",
        )
    if status == 404:
        return NotFoundError(f"{where}: {message or what}")
    if status == 401:
        return CacheopError(f"{where} does not know who you are", hint="Log in anew")
    if status == 403:
        return CacheopError(f"{where}: {message}", hint="Ask who may for that right")
    if status in (400, 409, 422):
        return UserError(f"{where}: {message}")
    return CacheopError(f"{where}: {what}: HTTP {status} {message}")


def path_of(plural: str, namespace: str = "", name: str = "") -> str:
    """The API path of Datasets or DataLoads. Pure."""
    parts = [f"/apis/{API_VERSION}"]
    if namespace:
        parts += ["namespaces", namespace]
    return "/".join([*parts, plural, *([name] if name else [])])


def _connect(choice: Choice) -> tuple[Any, str, str]:
    """(client, name of the cluster, namespace of its context)."""
    try:
        from kubernetes import client, config
        from kubernetes.config.config_exception import ConfigException
    except ImportError as error:
        raise UserError(
            "asking a cluster needs the kubernetes client, not installed here",
            hint="pip install 'cacheop[kubernetes]'",
        ) from error
    # Said always: the client would take what was in the environment when it was imported.
    file = choice.kubeconfig or os.environ.get("KUBECONFIG") or str(Path.home() / ".kube/config")
    try:
        if not choice.is_explicit and not os.environ.get("KUBECONFIG") and place.is_pod(os.environ):
            inside = client.Configuration()
            config.load_incluster_config(client_configuration=inside)
            namespace = place.IN_POD_TOKEN.with_name("namespace").read_text().strip()
            return client.ApiClient(inside), "of this pod", namespace
        contexts, active = config.list_kube_config_contexts(config_file=file)
        known = {found["name"]: found.get("context") or {} for found in contexts}
        name = choice.context or active["name"]
        if name not in known:
            raise UserError(
                f"there is no context {name} in the kubeconfig",
                hint=f"It has {', '.join(sorted(known))}",
            )
        made = config.new_client_from_config(config_file=file, context=name)
    except (ConfigException, OSError, KeyError, TypeError) as error:
        if isinstance(error, CacheopError):
            raise
        raise UserError(
            f"no cluster can be reached: {error}",
            hint="Set KUBECONFIG, or name a file with --kubeconfig",
        ) from error
    return made, name, str(known[name].get("namespace") or "default")
