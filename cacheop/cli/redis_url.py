"""`redis://[user:password@]host[:port][/db]`, as `up --redis` takes it. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlsplit

from cacheop.api.errors import UserError

DEFAULT_PORT = 6379
SCHEMES = {"redis": False, "rediss": True}
HINT = "Like redis://user:password@127.0.0.1:6379/0; rediss:// for TLS"


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """Where a Redis is and who we are there."""

    host: str
    port: int = DEFAULT_PORT
    database: int = 0
    tls: bool = False
    user: str = ""
    """Empty = the user `default`."""
    password: str = field(default="", repr=False)
    """Never shown, never logged."""

    @property
    def logs_in(self) -> bool:
        """Whether we say who we are; else we are whom everybody is."""
        return bool(self.user or self.password)

    @property
    def address(self) -> str:
        """`host:port`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def without_password(self, user: str | None = None) -> str:
        """The URL for configs and people, as our user or as `user`."""
        name = self.user if user is None else user
        who = quote(name, safe="") + "@" if name else ""
        return f"redis{'s' * self.tls}://{who}{self.address}/{self.database}"


def parse(text: str) -> RedisUrl:
    """Raises UserError; no message tells the password."""
    scheme = text.partition("://")[0]
    if scheme not in SCHEMES or "://" not in text:
        raise UserError("--redis: the URL does not begin with redis:// or rediss://", hint=HINT)
    try:
        parts = urlsplit(text)
        port = parts.port
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
    except ValueError:
        # What is wrong may be part of a password with a `/` or `@` in it, so it is not repeated.
        raise UserError(
            "--redis: host and port cannot be told apart from the rest of the URL",
            hint=f"{HINT}. Write / @ : # ? in a password as %2F %40 %3A %23 %3F",
        ) from None
    if not parts.hostname or port == 0:
        raise UserError("--redis: the URL names no host", hint=HINT)
    if parts.query or parts.fragment:
        raise UserError("--redis: the URL has options after ? or #, which are not known", hint=HINT)
    if not re.fullmatch(r"/?|/[0-9]{1,5}", parts.path, re.ASCII):
        raise UserError("--redis: after the / belongs the number of a database", hint=HINT)
    database = int(parts.path.strip("/") or 0)
    return RedisUrl(parts.hostname, port or DEFAULT_PORT, database, SCHEMES[scheme], user, password)
