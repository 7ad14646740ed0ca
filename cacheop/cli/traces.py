"""An `up` that fails leaves no directory behind that was not there before."""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


@contextlib.contextmanager
def removed_on_failure(roots: Sequence[Path], mount: Path | None) -> Iterator[None]:
    """When the block raises: delete those cache directories and the mount point that it made.

    What was there before stays, empty or not. The mount point goes only if it is empty.
    """
    made = [root for root in roots if not root.exists()]
    parents = [p for root in made for p in root.parents if not p.exists()]
    target = [p for p in ((mount, *mount.parents) if mount else ()) if not _is_there(p)]
    try:
        yield
    except BaseException:
        for root in made:
            shutil.rmtree(root, ignore_errors=True)
        # Deepest first; several nodes share parents.
        for path in sorted({*parents, *target}, key=lambda p: len(p.parts), reverse=True):
            with contextlib.suppress(OSError):  # somebody else put something in it
                path.rmdir()
        raise


def _is_there(path: Path) -> bool:
    """Whether there is anything; a dead mount, which fails whoever looks into it, is something."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True
