"""Which rank of a job this process is, and its plan."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from torch import distributed

from cacheop.api.errors import CacheopError
from cacheop.api.names import ENV_READER
from cacheop.client.planning import Plan, Read

if TYPE_CHECKING:
    from collections.abc import Sequence

log = logging.getLogger("cacheop")


def planned(paths: Sequence[Read], dataset: str, root: str, rank: int | None) -> Plan | None:
    """The plan, or None with a warning: training goes on without."""
    if ranks() > 1 and not os.environ.get(ENV_READER):
        parts = [os.environ.get(n, "") for n in ("MASTER_ADDR", "MASTER_PORT")]
        parts.append(os.environ.get("TORCHELASTIC_RUN_ID", ""))
        # Ranks are one job: what one of them read, the others do not need in this epoch.
        os.environ[ENV_READER] = "/".join(parts)[-64:]
    try:
        return Plan(paths, dataset=dataset, root=root, rank=own_rank() if rank is None else rank)
    except CacheopError as error:
        log.warning("cacheop: training goes on without its plan: %s", error)
        return None


def own_rank() -> int:
    """Its number in the job."""
    if distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_rank())
    return int(os.environ.get("RANK", "0"))


def ranks() -> int:
    """How many the job has."""
    if distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_world_size())
    return int(os.environ.get("WORLD_SIZE", "1"))
