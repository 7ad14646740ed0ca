"""The little of S3 that a test needs, on the standard library: signed requests to one server.

Not a client for data: it imports nothing heavy, so that a test's start costs nothing. Signing is
AWS Signature Version 4 (docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html) with
an unsigned payload.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import time
import urllib.parse
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

TIMEOUT_SECONDS = 30.0
_UNSIGNED = "UNSIGNED-PAYLOAD"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said to one request; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class S3Http:
    """Signed requests to the S3 server at `host`:`port`; each opens and closes a connection."""

    host: str
    port: int
    access_key: str
    secret_key: str = field(repr=False)
    region: str = "us-east-1"

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request for /`path`, whatever its answer. Raises OSError when no server answers."""
        target = "/" + urllib.parse.quote(path.lstrip("/"), safe="/-_.~")
        arguments = urllib.parse.urlencode(
            sorted((query or {}).items()), quote_via=urllib.parse.quote, safe="-_.~"
        )
        signed = self._signed(method, target, arguments, headers or {})
        connection = http.client.HTTPConnection(self.host, self.port, timeout=TIMEOUT_SECONDS)
        try:
            connection.request(
                method, f"{target}?{arguments}" if arguments else target, body, signed
            )
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, names, response.read())
        finally:
            connection.close()

    def expect(self, method: str, path: str, **arguments: object) -> Answer:
        """As `request`; raises OSError unless the answer is a success."""
        answer = self.request(method, path, **arguments)  # type: ignore[arg-type]
        if not 200 <= answer.status < 300:
            raise OSError(f"{method} {path}: HTTP {answer.status} {answer.body[:300]!r}")
        return answer

    def put(self, bucket: str, key: str, body: bytes) -> str:
        """Store an object; its etag, quotes included."""
        return self.expect("PUT", f"{bucket}/{key}", body=body).headers.get("etag", "")

    def get(self, bucket: str, key: str) -> bytes:
        """An object's bytes."""
        return self.expect("GET", f"{bucket}/{key}").body

    def delete(self, bucket: str, key: str) -> None:
        """Remove an object."""
        self.expect("DELETE", f"{bucket}/{key}")

    def make_bucket(self, bucket: str) -> None:
        """Make a bucket; one that is there already is fine."""
        answer = self.request("PUT", bucket)
        if answer.status not in {200, 409}:
            raise OSError(f"cannot make bucket {bucket}: HTTP {answer.status} {answer.body!r}")

    def _signed(
        self, method: str, target: str, arguments: str, headers: Mapping[str, str]
    ) -> dict[str, str]:
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        every = {name.lower(): value for name, value in headers.items()} | {
            "host": f"{self.host}:{self.port}",
            "x-amz-content-sha256": _UNSIGNED,
            "x-amz-date": moment,
        }
        names = ";".join(sorted(every))
        lines = "".join(f"{name}:{every[name].strip()}\n" for name in sorted(every))
        canonical = f"{method}\n{target}\n{arguments}\n{lines}\n{names}\n{_UNSIGNED}"
        scope = f"{moment[:8]}/{self.region}/s3/aws4_request"
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        key = f"AWS4{self.secret_key}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        text = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{digest}"
        signature = hmac.digest(key, text.encode(), "sha256").hex()
        every["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self.access_key}/{scope}, "
            f"SignedHeaders={names}, Signature={signature}"
        )
        return every
