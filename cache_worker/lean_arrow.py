"""pyarrow without pandas, for children that live for a second.

The first array that pyarrow makes has it look for pandas, and importing that takes longer than
listing a small Dataset. It looks once, so it is enough that pandas is not to be found that once.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType


class _NoPandas:
    """Hides pandas from one thread; another one may import it for itself meanwhile."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()

    def find_spec(
        self, name: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> None:
        """As importlib asks."""
        if name == "pandas" and threading.get_ident() == self._thread:
            raise ModuleNotFoundError("pandas is not needed here", name=name)


def import_early() -> threading.Thread:
    """Import pyarrow (and numpy) in a thread of its own, so that other work goes on meanwhile.

    For the whole process: only for one that needs nothing of pyarrow's for pandas.
    """
    thread = threading.Thread(target=_import, name="import", daemon=True)
    thread.start()
    return thread


def _import() -> None:
    hidden = _NoPandas()
    sys.meta_path.insert(0, hidden)
    try:
        import pyarrow as pa

        pa.array([])  # here it looks
        import cache_worker.manifest  # noqa: F401 - the rest that will be needed
    finally:
        sys.meta_path.remove(hidden)
