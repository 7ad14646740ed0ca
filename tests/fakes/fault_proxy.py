"""An HTTP proxy before a real server that fails on demand: the network's and the server's faults.

    with FaultProxy(port) as proxy:
        proxy.fail(Status(503), times=3)
        ... requests to proxy.endpoint ...
        proxy.requests     # what came: "GET /bucket/key"

Each fault is used up by one matching request; without faults every byte goes through unchanged,
the Host header too, so that signatures stay right.
"""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, ClassVar, Self

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Status:
    """Answer with this status instead of asking the server."""

    status: int
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Cut:
    """Close the connection after `bytes_sent` bytes of the body, of the full length announced."""

    bytes_sent: int


@dataclass(frozen=True, slots=True)
class Truncate:
    """Announce and send only `bytes_sent` bytes of the body: short, but well-formed."""

    bytes_sent: int


@dataclass(frozen=True, slots=True)
class Refuse:
    """Close the connection without an answer."""


@dataclass(frozen=True, slots=True)
class BlackHole:
    """Never answer, until the proxy is closed."""


@dataclass(frozen=True, slots=True)
class Slow:
    """Wait `first_seconds`, then send the body in pieces, `pause_seconds` apart."""

    first_seconds: float = 0.0
    pieces: int = 1
    pause_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Then:
    """Do `action` after the answer's head and half its body went out, then send the rest."""

    action: Callable[[], None]


Fault = Status | Cut | Truncate | Refuse | BlackHole | Slow | Then


@dataclass
class FaultProxy:
    """One proxy on a free port of `host`; owns its threads and ends them on exit."""

    upstream_port: int
    host: str = "127.0.0.1"
    """The server's address, and ours."""
    strip: tuple[str, ...] = ()
    """Headers of answers that are left out, such as ("etag",)."""
    rewrite: Callable[[bytes], bytes] | None = None
    """Changes every answer's body to a listing (?list-type), such as leaving out ETags."""
    on_fault: Callable[[], None] | None = None
    """Called when a Cut has sent its bytes, before the connection closes."""
    requests: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    """The headers of each of `requests`, names in lower case."""
    object_bytes: int = 0
    """Of all answers to GETs of objects."""
    _faults: deque[Fault] = field(default_factory=deque)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _closing: threading.Event = field(default_factory=threading.Event)
    _server: ThreadingHTTPServer | None = None

    def fail(self, fault: Fault, *, times: int = 1) -> None:
        """The next `times` GETs of objects (not listings) meet `fault`."""
        with self._lock:
            self._faults.extend([fault] * times)

    @property
    def endpoint(self) -> str:
        """URL of the proxy."""
        assert self._server
        return f"http://{self.host}:{self._server.server_address[1]}"

    def objects_read(self) -> int:
        """How many GETs of objects came."""
        return sum(r.startswith("GET") and "list-type" not in r for r in self.requests)

    def __enter__(self) -> Self:
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = ThreadingHTTPServer((self.host, 0), handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    def count(self, length: int) -> None:
        """An answer to a GET of an object has so many bytes."""
        with self._lock:
            self.object_bytes += length

    def next_fault(self) -> Fault | None:
        """The fault that the request being handled meets."""
        with self._lock:
            return self._faults.popleft() if self._faults else None

    def wait(self, seconds: float) -> None:
        """Wait, or until the proxy is closed."""
        self._closing.wait(seconds)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: ClassVar[FaultProxy]

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.proxy.requests.append(f"{self.command} {self.path}")
        self.proxy.headers.append({k.lower(): v for k, v in self.headers.items()})
        listing = "list-type" in self.path
        fault = None if listing or self.command != "GET" else self.proxy.next_fault()
        if isinstance(fault, Refuse):
            self.close_connection = True
        elif isinstance(fault, BlackHole):
            self.proxy.wait(60)
            self.close_connection = True
        elif isinstance(fault, Status):
            self._send(fault.status, {}, fault.body)
        else:
            self._forward(fault, listing=listing)

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815 - the base class's names

    def _forward(self, fault: Fault | None, *, listing: bool) -> None:
        sent = self.rfile.read(int(self.headers.get("content-length", 0)))
        upstream = http.client.HTTPConnection(self.proxy.host, self.proxy.upstream_port, timeout=30)
        try:
            upstream.request(self.command, self.path, sent or None, dict(self.headers))
            answer = upstream.getresponse()
            body = answer.read()
        finally:
            upstream.close()
        if listing and self.proxy.rewrite:
            body = self.proxy.rewrite(body)
        dropped = {*self.proxy.strip, "content-length", "connection", "transfer-encoding"}
        headers = {k: v for k, v in answer.getheaders() if k.lower() not in dropped}
        length = int(answer.getheader("content-length") or len(body))
        if self.command == "HEAD":
            self._head(answer.status, headers, length)
            return
        if self.command == "GET" and not listing:
            self.proxy.count(len(body))
        self._send(answer.status, headers, body, fault)

    def _head(self, status: int, headers: dict[str, str], length: int) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def _send(
        self, status: int, headers: dict[str, str], body: bytes, fault: Fault | None = None
    ) -> None:
        if isinstance(fault, Slow):
            self.proxy.wait(fault.first_seconds)
        if isinstance(fault, Truncate):
            body = body[: fault.bytes_sent]
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._head(status, headers, len(body))
            if isinstance(fault, Cut):
                self.wfile.write(body[: fault.bytes_sent])
                self.close_connection = True
                if self.proxy.on_fault:
                    self.proxy.on_fault()
            elif isinstance(fault, Slow):
                step = -(-len(body) // fault.pieces) or 1
                for start in range(0, len(body), step):
                    self.wfile.write(body[start : start + step])
                    self.proxy.wait(fault.pause_seconds)
            elif isinstance(fault, Then):
                half = len(body) // 2
                self.wfile.write(body[:half])
                self.wfile.flush()
                time.sleep(0.05)
                fault.action()
                self.wfile.write(body[half:])
            else:
                self.wfile.write(body)
