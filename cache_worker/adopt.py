"""`python -m cache_worker adopt CONFIG VERSION`: make a version of what another node listed.

The worker fetched the two files of names.fetched_paths; here they are checked, get slots in this
node's table, and take their places. A child for the same reason as the index child (listing.py).
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from cache_worker.listing import report
from cache_worker.settings import load
from cache_worker.version_files import adopt_version, current_version, open_index
from cacheop.api.names import fetched_paths

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def main(arguments: Sequence[str]) -> int:
    """Print the version's facts, or the error, as one JSON line."""
    if len(arguments) != 2:
        sys.stderr.write("usage: python -m cache_worker adopt CONFIG VERSION\n")
        return 2
    config, version = arguments
    return report(lambda: adopt(load(config).root, version), sys.stdout)


def adopt(root: Path, version: str) -> dict[str, Any]:
    """The same result as an index child's. Raises StoreError."""
    current = current_version(root)
    index_file, arrow_file = (root / path for path in fetched_paths(version))
    written = adopt_version(root, version, index_file, arrow_file)
    index = open_index(root, version)
    return {
        "version": version,
        "changed": version != current if current else written,
        "files": index.files,
        "bytes": index.bytes,
        "directories": index.directories,
        "skipped": index.meta.get("skipped", {}),
    }
