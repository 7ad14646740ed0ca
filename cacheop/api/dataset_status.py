"""`status` of a Dataset: observed, recomputed at each pass, written by the operator alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from cacheop.api.conditions import CONDITIONS, COUNT, Condition
from cacheop.api.model import Limits

_SHORT = Limits(max_length=32)


@dataclass(frozen=True, slots=True)
class CacheStates:
    """How much is cached and what it cost."""

    cached: Annotated[str, _SHORT] = ""
    """Unique bytes in the cache, for people: 41.2Gi."""
    cached_bytes: Annotated[int, COUNT] = 0
    """Unique bytes in the cache: a chunk on several nodes counts once."""
    cached_percentage: Annotated[str, _SHORT] = ""
    """The same as a share of the version, at most 100.0%."""
    hit_ratio: Annotated[str, _SHORT] = ""
    """1 - bytes fetched on demand / bytes read, such as 98.3%; empty when unknown."""
    origin_bytes: Annotated[int, COUNT] = 0
    """Bytes read from the origin for this version."""
    origin_ratio: Annotated[str, _SHORT] = ""
    """Those as a multiple of the version's bytes: 1.00 is the least that caches all of it."""


@dataclass(frozen=True, slots=True)
class NodeState:
    """A node that holds chunks."""

    name: Annotated[str, Limits(max_length=253)]
    """The node's name."""
    cached_bytes: Annotated[int, COUNT] = 0
    """Bytes that it holds of the current version."""
    complete: bool = False
    """Whether it holds the whole version."""


@dataclass(frozen=True, slots=True)
class DatasetStatus:
    """What is observed of a Dataset."""

    phase: Literal["Pending", "Indexing", "Ready", "Deleting", "Failed"] = "Pending"
    """The state in one word."""
    version: Annotated[str, Limits(max_length=64)] = ""
    """The version that new mounts get."""
    mode: Annotated[str, _SHORT] = ""
    """How pods see the files: Native, ZeroOpen, Passthrough, Fuse, or Mixed."""
    file_num: Annotated[int | None, COUNT] = None
    """Files of the version."""
    ufs_total: Annotated[str, _SHORT] = ""
    """Size of the version, for people: 138.2Gi."""
    ufs_total_bytes: Annotated[int | None, COUNT] = None
    """Size of the version."""
    replicas: Annotated[int, Limits(minimum=0, maximum=2**31 - 1)] = 0
    """Workers there are."""
    ready_replicas: Annotated[int, Limits(minimum=0, maximum=2**31 - 1)] = 0
    """Workers that are ready."""
    selector: Annotated[str, Limits(max_length=512)] = ""
    """Label selector of the workers."""
    cache_states: CacheStates = CacheStates()
    """How much is cached and what it cost."""
    conditions: Annotated[tuple[Condition, ...], CONDITIONS] = ()
    """Aspects of the state."""
    nodes: Annotated[tuple[NodeState, ...], Limits(max_items=5000, keys=("name",))] = ()
    """Nodes that hold chunks."""
    refreshed_at: Annotated[str | None, Limits(max_length=64)] = None
    """spec.refresh.requestedAt as it was carried out last."""
    observed_generation: Annotated[int | None, COUNT] = None
    """metadata.generation that this status is about."""
