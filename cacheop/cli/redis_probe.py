"""What `up --redis` asks a Redis before anything starts: is it there, may we, is it new enough."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING

from cacheop.api.errors import CredentialError, UserError

if TYPE_CHECKING:
    from io import BufferedReader

    from cacheop.cli.redis_url import RedisUrl

SECONDS = 5.0
LINE_MAX_BYTES = ANSWER_MAX = 1 << 16
_CREDENTIALS = ("WRONGPASS", "NOAUTH", "NOPERM")


def check(url: RedisUrl, acl_user: str) -> None:
    """Raises UserError when a cluster could not be kept there, with what to do."""
    if url.user == acl_user:
        raise UserError(
            f"--redis: {acl_user} is the Dataset's own user, whose password each `up` changes",
            hint="Name the user who administers the Redis",
        )
    try:
        with _connect(url) as line, line.makefile("rb") as answers:
            if url.logs_in:
                _ask(url, line, answers, "AUTH", url.user or "default", url.password)
            _ask(url, line, answers, "PING")
            _ask(url, line, answers, "SELECT", str(url.database))
            # Of the same right and age as ACL SETUSER, and changes nothing.
            _ask(url, line, answers, "ACL", "GETUSER", acl_user)
    except ssl.SSLError as error:
        why = getattr(error, "verify_message", "") or error.reason or str(error)
        raise UserError(
            f"--redis: no TLS with {url.address}: {why}",
            hint="Name a CA with SSL_CERT_FILE, or write redis:// if it has no TLS",
        ) from error
    except TimeoutError as error:
        raise UserError(
            f"--redis: {url.address} did not answer within {SECONDS:.0f} s",
            hint="Check host and port; a server with TLS needs rediss://",
        ) from error
    except OSError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"--redis: cannot reach {url.address}: {error.strerror or error}",
            hint="Start the Redis, or check host and port",
        ) from error


def _connect(url: RedisUrl) -> socket.socket:
    line = socket.create_connection((url.host, url.port), timeout=SECONDS)
    if not url.tls:
        return line
    try:
        return ssl.create_default_context().wrap_socket(line, server_hostname=url.host)
    except BaseException:
        line.close()
        raise


def _ask(url: RedisUrl, line: socket.socket, answers: BufferedReader, *words: str) -> None:
    """Send one command; of the answer only matters whether it is an error."""
    parts = [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
    line.sendall(f"*{len(words)}\r\n{''.join(parts)}".encode())
    error = _skip(answers)
    if error is None:
        return
    command = "ACL" if words[0] == "ACL" else words[0]
    where = f"--redis: {url.address}"
    if error.startswith(_CREDENTIALS) or words[0] == "AUTH":
        who = f"user {url.user or 'default'}"
        hint = "Check user and password in the URL"
        if error.startswith("NOPERM"):
            hint = f"Give the {who} the right to {command} (+acl), or name another in the URL"
        raise CredentialError(f"{where} refuses {who}: {error}", hint=hint)
    hint = "Redis 6 or newer is needed" if command == "ACL" else "Check the URL"
    raise UserError(f"{where} answers {command} with: {error}", hint=hint)


def _skip(answers: BufferedReader) -> str | None:
    """Read one answer; the text of an error, else None."""
    head = answers.readline(LINE_MAX_BYTES)
    if not head.endswith(b"\r\n"):
        raise UserError(
            "--redis: what listens there hung up or is no Redis",
            hint="Check host and port; a server with TLS needs rediss://",
        )
    kind, text = head[:1], head[1:-2].decode(errors="replace")
    if kind == b"-":
        return text
    if kind in {b"+", b":", b"_", b"#", b","}:
        return None
    if kind in {b"$", b"*", b"%", b"~"} and text.lstrip("-").isdecimal():
        count = int(text)
        if count > ANSWER_MAX:
            raise UserError("--redis: what listens there is no Redis", hint="Check host and port")
        if kind == b"$":
            answers.read(count + 2 if count >= 0 else 0)
        else:
            for _ in range(count * (2 if kind == b"%" else 1)):
                _skip(answers)
        return None
    raise UserError("--redis: what listens there is no Redis", hint="Check host and port")
