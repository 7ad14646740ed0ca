"""The fields of CONFIG that say in which cluster a node is. Pure.

    "zone":  "rack-1"                     its failure domain; "" is one too
    "peers": "10.0.0.7:7070"              where to listen for peers; "" = no cluster
    "members": {"static": [{"node": "n0", "address": "10.0.0.7:7070", "zone": "rack-1"}, …]}
    "members": {"redis": {"url": "redis://USER@HOST:PORT/0", "password_file": PATH,
                          "prefix": "cacheop:NS/NAME:"}}
    "redis_admin": {"url": "redis://USER@HOST:PORT/0", "password_file": PATH}

`redis_admin` is for who runs `python -m cache_worker redis-acl CONFIG`, which makes the user of
`members.redis` with the password in that file; nobody else needs it. rediss:// means TLS. Users and
password files may be left out where the Redis asks for none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from cache_worker.cluster.view import Member
from cache_worker.members.facts import TEXT_MAX, is_address
from cacheop.api.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_PORT = 6379
URL_HINT = "Like redis://user@127.0.0.1:6379/0; rediss:// for TLS"
# Nothing that a pattern of Redis's ACL would take for a joker.
_PREFIX = re.compile(r"[\w:./{}-]+:", re.ASCII)
_LISTEN = re.compile(r"(\[[0-9a-fA-F:.]+\]|[\w.-]*):([0-9]{1,5})", re.ASCII)


@dataclass(frozen=True, slots=True)
class RedisServer:
    """Where a Redis is, and who we are there."""

    host: str
    port: int = DEFAULT_PORT
    database: int = 0
    tls: bool = False
    user: str = ""
    """Empty = the user `default`."""
    password_file: Path | None = None
    """Read at each connect, so a new password needs no restart."""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"redis{'s' * self.tls}://{host}:{self.port}/{self.database}"


@dataclass(frozen=True, slots=True)
class RedisPlace:
    """Where the members of one Dataset announce themselves."""

    server: RedisServer
    prefix: str
    """What each of its keys begins with."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """What CONFIG says of the cluster; the default is none."""

    zone: str = ""
    peers: str = ""
    static: tuple[Member, ...] = ()
    """The fixed list, us included; empty when members are found elsewhere."""
    redis: RedisPlace | None = None
    redis_admin: RedisServer | None = None


def parse(raw: Mapping[str, Any], node: str) -> Cluster:
    """The cluster of CONFIG `raw` as `node` sees it. Raises UserError."""
    members = _mapping("members", raw.get("members") or {})
    if unknown := set(members) - {"static", "redis"}:
        raise UserError(f"members: {sorted(unknown)} is not known", hint="static or redis")
    if len(members) > 1:
        raise UserError("members: both static and redis", hint="Keep one of them")
    peers = _text("peers", raw.get("peers") or "")
    if members and not peers:
        raise UserError("members without peers", hint='"peers": "host:port" to listen on')
    if peers and not _is_listening_address(peers):
        raise UserError(f"peers: {peers!r} is not host:port", hint="Like 0.0.0.0:7070")
    zone = _text("zone", raw.get("zone") or "")
    static = _static(members["static"], node, zone) if "static" in members else ()
    admin = raw.get("redis_admin")
    return Cluster(
        zone=zone,
        peers=peers,
        static=static,
        redis=_redis(members["redis"]) if "redis" in members else None,
        redis_admin=_server("redis_admin", _mapping("redis_admin", admin)) if admin else None,
    )


def parse_url(where: str, url: str, password_file: str = "") -> RedisServer:
    """The server of `url`, which is field `where` of CONFIG. Raises UserError."""
    try:
        parts = urlsplit(url)
        host, port, secret = parts.hostname, parts.port, parts.password
    except ValueError:
        raise UserError(f"{where}: host and port cannot be told apart", hint=URL_HINT) from None
    if secret is not None:
        # Not repeated: it may be the password.
        raise UserError(f"{where}: a password in the URL", hint="Put it into password_file")
    if parts.scheme not in {"redis", "rediss"} or not host or port == 0:
        raise UserError(f"{where}: {url!r} is no URL of a Redis", hint=URL_HINT)
    path = re.fullmatch(r"/?([0-9]{0,5})", parts.path, re.ASCII)
    if path is None or parts.query or parts.fragment:
        raise UserError(f"{where}: after the / belongs the number of a database", hint=URL_HINT)
    return RedisServer(
        host=host,
        port=DEFAULT_PORT if port is None else port,
        database=int(path[1] or 0),
        tls=parts.scheme == "rediss",
        user=unquote(parts.username or ""),
        password_file=Path(password_file) if password_file else None,
    )


def _redis(value: Any) -> RedisPlace:
    raw = _mapping("members.redis", value)
    prefix = _text("members.redis.prefix", raw.get("prefix"))
    if not _PREFIX.fullmatch(prefix):
        raise UserError(
            f"members.redis.prefix: {prefix!r} is none",
            hint="Letters, digits and -_./{} with a colon at the end, like cacheop:NS/NAME:",
        )
    return RedisPlace(_server("members.redis", raw), prefix)


def _server(where: str, raw: Mapping[str, Any]) -> RedisServer:
    url = _text(f"{where}.url", raw.get("url"))
    file = _text(f"{where}.password_file", raw.get("password_file") or "")
    server = parse_url(f"{where}.url", url, file)
    if server.user and server.password_file is None:
        raise UserError(f"{where}: a user without a password_file", hint="Name the file")
    return server


def _static(value: Any, node: str, zone: str) -> tuple[Member, ...]:
    if not isinstance(value, list):
        raise UserError("members.static is not a list", hint='[{"node", "address", "zone"}, …]')
    found: dict[str, Member] = {}
    for k, item in enumerate(value):
        where = f"members.static[{k}]"
        raw = _mapping(where, item)
        name, address = _text(f"{where}.node", raw.get("node")), raw.get("address")
        if not name or name in found:
            raise UserError(f"{where}.node: {name!r} is empty or there twice")
        if not isinstance(address, str) or not is_address(address):
            raise UserError(f"{where}.address: {address!r} is not host:port")
        found[name] = Member(name, address, _text(f"{where}.zone", raw.get("zone") or ""))
    if node not in found:
        # Others would never ask it, while it took itself for the owner of its share.
        raise UserError(f"members.static does not have {node!r}, which this node is called")
    if found[node].zone != zone:
        raise UserError(f"zone is {zone!r}, but {found[node].zone!r} in members.static")
    return tuple(sorted(found.values()))


def _is_listening_address(text: str) -> bool:
    found = _LISTEN.fullmatch(text)
    return found is not None and int(found[2]) < 65536


def _mapping(where: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{where} is not an object")
    return value


def _text(where: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) > TEXT_MAX or not value.isprintable():
        raise UserError(f"{where} is not a short text: {ascii(value)[:80]}")
    return value
