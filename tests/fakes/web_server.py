"""A web server over a directory: index pages, ETags if wanted, and ranges, on 127.0.0.1."""

from __future__ import annotations

import hashlib
import html
import threading
import time
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, ClassVar, Self
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    import ssl
    from pathlib import Path


@dataclass
class WebServer:
    """Serves `root`; owns its threads."""

    root: Path
    etags: bool = True
    weak: bool = False
    ranges: bool = True
    conditions: bool = True
    tls: ssl.SSLContext | None = None
    delay_seconds: float = 0.0
    """Before each answer with a file's bytes."""
    sent_bytes: int = 0
    """Of files, in answers to GET."""
    root_listings: int = 0
    _etags: dict[tuple[Path, int, int], str] = field(default_factory=dict)
    _counting: threading.Lock = field(default_factory=threading.Lock)
    _server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        assert self._server
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self._server.server_address[1]}"

    def etag(self, path: Path, body: bytes) -> str:
        key = path, path.stat().st_mtime_ns, len(body)
        if key not in self._etags:
            self._etags[key] = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        return self._etags[key]

    def count(self, sent_bytes: int, *, root_listing: bool = False) -> None:
        with self._counting:
            self.sent_bytes += sent_bytes
            self.root_listings += root_listing

    def __enter__(self) -> Self:
        handler = type("Handler", (_Handler,), {"server_of": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        if self.tls:
            self._server.socket = self.tls.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_of: ClassVar[WebServer]

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        server = self.server_of
        path = server.root / unquote(self.path).strip("/")
        if path.is_dir():
            server.count(0, root_listing=path == server.root and self.command == "GET")
            names = sorted(p.name + "/" * p.is_dir() for p in path.iterdir())
            links = "".join(f'<a href="{quote(n)}">{html.escape(n)}</a>\n' for n in names)
            self._send(200, f'<a href="../">..</a><a href="?C=N">N</a>{links}'.encode(), {})
            return
        if not path.is_file():
            self._send(404, b"no", {})
            return
        body = path.read_bytes()
        headers = {"Last-Modified": formatdate(path.stat().st_mtime, usegmt=True)}
        if server.etags:
            etag = server.etag(path, body)
            headers["ETag"] = f"W/{etag}" if server.weak else etag
            wanted = self.headers.get("if-match")
            if server.conditions and wanted and (server.weak or wanted != etag):
                self._send(412, b"", {})
                return
        if self.command == "GET":
            time.sleep(server.delay_seconds)
        span = self.headers.get("range")
        if not span or not server.ranges:
            self._send(200, body, headers)
            return
        start, _, end = span.removeprefix("bytes=").partition("-")
        part = body[int(start) : int(end) + 1]
        last = int(start) + len(part) - 1
        self._send(206, part, {**headers, "Content-Range": f"bytes {start}-{last}/{len(body)}"})

    do_HEAD = do_GET  # noqa: N815 - the base class's name

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            if status in (200, 206) and "Last-Modified" in headers:
                self.server_of.count(len(body))
            self.wfile.write(body)
