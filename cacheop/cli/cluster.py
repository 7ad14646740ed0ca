"""What the nodes that one `up` starts are told of each other. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cacheop.cli.redis_url import RedisUrl


@dataclass(frozen=True, slots=True)
class Cluster:
    """Nodes that share one cache."""

    zones: tuple[str, ...]
    """Of each node; its failure domain when the Dataset says `placement: Zone`."""
    redis: RedisUrl | None = None
    """Where members meet, as who may make users there; None = they are a fixed list."""


def node_name(number: int) -> str:
    """The name of the node that was started as `number`."""
    return f"node-{number}"


def of(nodes: int, zones: int, redis: RedisUrl | None) -> Cluster | None:
    """Nodes are dealt to the zones in turn. None: one node without a Redis shares with nobody."""
    if nodes == 1 and redis is None:
        return None
    return Cluster(tuple(f"zone-{k % zones}" for k in range(nodes)), redis)


def acl_user(namespace: str, name: str) -> str:
    """The Redis user that may touch this Dataset's keys and nothing else.

    A dot between the two, which neither has: a-b/c and a/b-c are not the same user.
    """
    return f"cacheop-{namespace}.{name}"


def key_prefix(namespace: str, name: str) -> str:
    """What every Redis key of the Dataset begins with."""
    return f"cacheop:{namespace}/{name}:"


def password_file(directory: Path) -> Path:
    """In the Dataset's private directory: the password of its own Redis user."""
    return directory / "redis-password"


def admin_password_file(directory: Path) -> Path:
    """The password that came with --redis."""
    return directory / "redis-admin-password"


def fields(
    cluster: Cluster, addresses: Sequence[str], directory: Path, namespace: str, name: str
) -> list[dict[str, Any]]:
    """What the CONFIG of each node says of the cluster; `addresses` are where they serve peers."""
    nodes = list(enumerate(zip(addresses, cluster.zones, strict=True)))
    url = cluster.redis
    if url is None:
        members: dict[str, Any] = {
            "static": [
                {"node": node_name(k), "address": address, "zone": zone}
                for k, (address, zone) in nodes
            ]
        }
    else:
        members = {
            "redis": {
                "url": url.without_password(acl_user(namespace, name)),
                "password_file": str(password_file(directory)),
                "prefix": key_prefix(namespace, name),
            }
        }
    told = [{"peers": address, "zone": zone, "members": members} for _, (address, zone) in nodes]
    if url is not None:
        file = str(admin_password_file(directory)) if url.logs_in else ""
        told[0]["redis_admin"] = {"url": url.without_password(), "password_file": file}
    return told


def differences(cluster: Cluster | None, configs: Sequence[Mapping[str, Any]]) -> tuple[bool, bool]:
    """Whether (zones, Redis) of what runs, as its configs say, are others than those wanted."""
    zones = cluster.zones if cluster else ("",) * len(configs)
    url = cluster.redis.without_password() if cluster and cluster.redis else ""
    admin = (configs[0].get("redis_admin") or {}).get("url", "")
    return zones != tuple(config.get("zone", "") for config in configs), url != admin
