"""A Kubernetes API server that keeps what it is given: no rules but names, versions and rights."""

from __future__ import annotations

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, urlsplit

from tests.fakes.websocket_bridge import PROTOCOL, accept_key, bridge

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

JSON = dict[str, Any]
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


class FakeApiServer:
    """Objects by path. `allowed` says of a SelfSubjectAccessReview's attributes whether."""

    def __init__(self) -> None:
        self.objects: dict[str, JSON] = {"/version": {"gitVersion": "v1.31.4"}}
        self.allowed: Callable[[JSON], bool] = lambda _: True
        self.forbidden: set[str] = set()
        self.ports: dict[tuple[str, int], tuple[str, int]] = {}
        """(path of a pod, port) -> where that port is in truth."""
        self.changed: Callable[[str, JSON], None] = lambda _path, _object: None
        """Called after each write: what an operator would do."""
        self._made = 0
        handler = type("Handler", (_Handler,), {"api": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def kubeconfig(self, path: Path, namespace: str = "vision") -> Path:
        context = {"cluster": "c", "user": "u", "namespace": namespace}
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "c", "cluster": {"server": self.url}}],
                    "users": [{"name": "u", "user": {"token": "t0ken"}}],
                    "contexts": [{"name": "lab", "context": context}],
                    "current-context": "lab",
                }
            )
        )
        return path

    def put(self, path: str, **document: Any) -> JSON:
        name, namespace = path.rsplit("/", 1)[1], ""
        if "/namespaces/" in path:
            namespace = path.split("/namespaces/")[1].split("/", maxsplit=1)[0]
        metadata = {"name": name, "namespace": namespace, "uid": f"uid-{name}", "generation": 1}
        given = document.pop("metadata", {})
        self.objects[path] = {"metadata": metadata | given, **document}
        return self.objects[path]

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: JSON) -> Any:
        """(status, body)."""
        if path in self.forbidden:
            return 403, {"message": f"you may not {path}", "details": {"kind": "x"}}
        if method == "POST" and path == REVIEWS:
            allowed = self.allowed(body["spec"]["resourceAttributes"])
            return 201, body | {"status": {"allowed": allowed}}
        if method == "POST":
            self._made += 1
            metadata = body["metadata"]
            name = metadata.get("name") or f"{metadata['generateName']}{self._made:05}"
            made = self.put(f"{path}/{name}", **body)
            made["metadata"]["name"] = name
            self.changed(f"{path}/{name}", made)
            return 201, made
        if method == "PATCH" and path in self.objects:
            self.objects[path] = _merged(self.objects[path], body)
            self.changed(path, self.objects[path])
            return 200, self.objects[path]
        if path in self.objects:
            return 200, self.objects[path]
        return self._list(path, query)

    def _list(self, path: str, query: dict[str, list[str]]) -> Any:
        prefix, _, plural = path.rpartition("/")
        wanted = dict(p.split("=") for p in query.get("labelSelector", [""])[0].split(",") if p)
        found = [
            item
            for at, item in sorted(self.objects.items())
            if at.startswith(prefix)
            and at.rpartition("/")[0].endswith(f"/{plural}")
            and wanted.items() <= (item["metadata"].get("labels") or {}).items()
        ]
        if not found and not path.endswith(("s", "/nodes")):
            return 404, {"message": f"{path} not found", "details": {"kind": plural}}
        return 200, {"items": found}


class _Handler(BaseHTTPRequestHandler):
    api: FakeApiServer

    def _do(self) -> None:
        url = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"{}")
        if self.headers.get("Upgrade") == "websocket":
            self._forward(url.path, int(parse_qs(url.query)["ports"][0]))
            return
        if self.headers.get("Authorization") != "Bearer t0ken":
            status, answer = 401, {"message": "Unauthorized"}
        else:
            status, answer = self.api.answer(self.command, url.path, parse_qs(url.query), body)
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _forward(self, path: str, port: int) -> None:
        """A port-forward to what `ports` says that a pod's port is."""
        pod = path.removesuffix("/portforward")
        if path in self.api.forbidden or self.headers.get("Authorization") != "Bearer t0ken":
            self.send_error(403)
            return
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", accept_key(self.headers["Sec-WebSocket-Key"]))
        self.send_header("Sec-WebSocket-Protocol", PROTOCOL)
        self.end_headers()
        self.close_connection = True
        with contextlib.suppress(OSError):  # the pod's port is closed
            bridge(self.rfile, self.wfile, port, self.api.ports[pod, port])

    do_GET = do_POST = do_PATCH = _do  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


def _merged(document: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    result = dict(document) if isinstance(document, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merged(result.get(key), value)
    return result
