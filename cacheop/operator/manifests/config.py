"""What workers are told: ConfigMap and Secret; what node plugins are told to keep. Pure."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

from cacheop.api.dataset import Dataset, to_document
from cacheop.operator import naming
from cacheop.operator.manifests.owned import metadata

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cacheop.operator.manifests.owned import Document, Owner
    from cacheop.operator.tokens import MasterKey

SHARD_BYTES = 512 << 10


def dataset_document(owner: Owner) -> Document:
    """The Dataset as its workers read it."""
    document = to_document(Dataset(owner.name, owner.spec, owner.namespace))
    document["metadata"]["uid"] = owner.uid
    return document


def config_map(owner: Owner, zones: Mapping[str, str], redis_url: str, version: str) -> Document:
    """The ConfigMap that workers mount. `redis_url` has the Dataset's own user in it, or is ""."""
    redis = {"url": redis_url, "prefix": naming.redis_prefix(owner.uid)} if redis_url else None
    worker = {
        "zones": dict(zones),
        "redis": redis,
        "version": version,
        "suspend": owner.spec.suspend,
    }
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(owner, naming.object_name(owner.name)),
        "data": {"dataset.json": _text(dataset_document(owner)), "worker.json": _text(worker)},
    }


def redis_url(server: str, uid: str) -> str:
    """The URL of the Redis for the Dataset's own user."""
    scheme, _, rest = server.partition("://")
    return f"{scheme}://{naming.redis_user(uid)}@{rest}" if rest else ""


def secret(namespace: str, uids: Iterable[str], shared: Iterable[str], key: MasterKey) -> Document:
    """The one Secret of a namespace: keys of its own Datasets, fewer of those `shared` into it."""
    data: dict[str, str] = {}
    for uid in uids:
        data[f"{uid}.control"] = key.control(uid)
        data[f"{uid}.client"] = key.client(uid)
        data[f"{uid}.redis"] = key.redis(uid)
    for uid in shared:
        data[f"{uid}.client"] = key.client(uid)
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": naming.SECRET,
            "namespace": namespace,
            "labels": {
                naming.NAME_LABEL: naming.FIELD_MANAGER,
                naming.MANAGED_LABEL: naming.FIELD_MANAGER,
            },
        },
        "type": "Opaque",
        "data": {k: base64.b64encode(v.encode()).decode() for k, v in sorted(data.items())},
    }


def datasets(system: str, known: Iterable[tuple[str, str, str]], generation: int) -> list[Document]:
    """What node plugins must not clean up: (namespace, name, uid) of every Dataset, in shards.

    The first shard is `cacheop-datasets`; a plugin cleans up only when it has all `shards` of one
    generation.
    """
    shards: list[list[dict[str, str]]] = [[]]
    size = 0
    for namespace, name, uid in sorted(known):
        entry = {"namespace": namespace, "name": name, "uid": uid}
        length = len(_text(entry)) + 1
        if size + length > SHARD_BYTES and shards[-1]:
            shards.append([])
            size = 0
        shards[-1].append(entry)
        size += length
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": naming.datasets_name(k),
                "namespace": system,
                "labels": {
                    naming.NAME_LABEL: naming.FIELD_MANAGER,
                    naming.MANAGED_LABEL: naming.FIELD_MANAGER,
                },
            },
            "data": {
                "datasets.json": _text(
                    {
                        "generation": generation,
                        "shard": k,
                        "shards": len(shards),
                        "datasets": entries,
                    }
                )
            },
        }
        for k, entries in enumerate(shards)
    ]


def _text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
