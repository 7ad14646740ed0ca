"""`python -m cache_worker drop CONFIG VERSION`: which slots would be free without that version.

Prints [[first slot, count], ...] as one JSON line and deletes nothing: the worker clears those
slots in its table, then removes the version's files. A child, because numpy does in a second what
would keep the worker's loop busy for many.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from cache_worker.listing import report
from cache_worker.settings import load
from cache_worker.version_files import open_index, open_slots, versions_on_disk

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def main(arguments: Sequence[str]) -> int:
    """Print the runs, or the error as one JSON line."""
    if len(arguments) != 2:
        sys.stderr.write("usage: python -m cache_worker drop CONFIG VERSION\n")
        return 2
    config, version = arguments
    return report(lambda: only_in(load(config).root, version), sys.stdout)


def only_in(root: Path, version: str) -> list[tuple[int, int]]:
    """(first slot, count) of what `version` uses and no other version there does."""
    from cache_worker.slots import join, runs_of, without

    own = join([runs_of(open_index(root, version), open_slots(root, version))])
    others = join(
        [
            runs_of(open_index(root, other), open_slots(root, other))
            for other in versions_on_disk(root)
            if other != version
        ]
    )
    runs = without(own, others)
    return list(zip(runs.first.tolist(), runs.count.tolist(), strict=True))
