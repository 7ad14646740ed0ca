"""Where workers listen for clients over TCP, in the order in which they are tried. Pure.

On Kubernetes that is the Dataset's Service, which leads to the worker on this node only, then the
headless one, which has every worker: a pod on a node without a worker reads from another node.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cacheop.client.url import Target

PORT = 7071


def endpoints(target: Target, given: str, *, in_cluster: bool) -> tuple[str, ...]:
    """host:port of each; `given` (several with commas between) is tried instead of the names."""
    local, every = f"cacheop-{target.dataset}", f"cacheop-{target.dataset}-workers"
    if not given:
        below = f"{target.namespace}.svc:{PORT}"
        return (f"{local}.{below}", f"{every}.{below}") if in_cluster else ()
    found: list[str] = []
    for endpoint in filter(None, map(str.strip, given.split(","))):
        found.append(endpoint)
        host, _, port = endpoint.rpartition(":")
        first, dot, rest = host.partition(".")
        if first == local:
            found.append(f"{every}{dot}{rest}:{port}")
    return tuple(dict.fromkeys(found))
