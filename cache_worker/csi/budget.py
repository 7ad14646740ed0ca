"""How a cache dir is shared, and which Datasets there are. Pure."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

SHARE = 0.8
LEAST_BYTES = 1 << 30


def share_bytes(disk_bytes: int, datasets: int) -> int:
    """What one of so many Datasets without a quota of its own may keep on a disk of that size."""
    whole = int(disk_bytes * SHARE)
    return max(min(LEAST_BYTES, whole), whole // max(1, datasets))


def joined(shards: Sequence[object]) -> tuple[int, frozenset[str]] | None:
    """(generation, uids) of the shards of the list of Datasets; None unless all are of one.

    A shard: {"generation": n, "shards": how many there are, 1 if left out, "datasets": [{"uid"}]}
    """
    generations: set[int] = set()
    uids: set[str] = set()
    for shard in shards:
        if not isinstance(shard, dict):
            return None
        generation, datasets = shard.get("generation"), shard.get("datasets")
        if not isinstance(generation, int) or not isinstance(datasets, list):
            return None
        if shard.get("shards", 1) != len(shards):
            return None
        for dataset in datasets:
            if not isinstance(dataset, dict) or not isinstance(dataset.get("uid"), str):
                return None
            uids.add(dataset["uid"])
        generations.add(generation)
    if len(generations) != 1:
        return None
    return generations.pop(), frozenset(uids)
