"""`cacheop.client.plan`: tell the worker which files are read next, so that they are there in time.

with plan(paths):            # "cacheop://mine/a.jpg", …, in the order in which they are read
    for path in paths: ...
"""

from __future__ import annotations

import logging
import os
import weakref
from array import array
from typing import TYPE_CHECKING, Self

from cacheop import local
from cacheop.api.chunk import chunks_of_span
from cacheop.api.errors import UserError
from cacheop.api.index import NO_ROW
from cacheop.api.plan import Reads
from cacheop.client import url
from cacheop.client.link import Patience, WorkerLink
from cacheop.client.locate import Options, attach_worker, own_namespace
from cacheop.client.teller import Teller

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from cacheop.client.dataset import CachedDataset
    from cacheop.client.tree import Tree

log = logging.getLogger("cacheop")

Read = str | tuple[str, int, int]
"""A whole file, or its bytes [start, end)."""
PATIENCE = Patience(attach_seconds=5.0, reconnect_seconds=1.0, away_seconds=0.0)


class Plan:
    """One rank's plan. It ends with `close`, with the process, or when nobody holds it any more."""

    def __init__(
        self,
        paths: Sequence[Read],
        *,
        dataset: str = "",
        root: str = "",
        rank: int = 0,
        options: Options | None = None,
    ) -> None:
        """`paths`: all that may be read. See `plan` for the rest."""
        place = _place(paths, dataset, root)
        rows = _Rows(paths, *place, options or Options(patience=PATIENCE))
        self._rows = rows
        self._teller = Teller(rows.connect, rank)
        weakref.finalize(self, self._teller.close)

    @property
    def state(self) -> str:
        """What the worker makes of it: new, kept, wrong, off, full, away."""
        return self._teller.state

    def publish(self, epoch: int, numbers: Sequence[int], start: int = 0) -> None:
        """What is read in an epoch, as numbers of `paths`; `start`: of so many reads before."""
        rows = self._rows
        self._teller.publish(epoch, start, lambda: rows.of(numbers))

    def reached(self, epoch: int, place: int) -> None:
        """So many reads of the epoch were begun. Without it, the worker goes by what it hears."""
        self._teller.reached(epoch, place)

    def wait_told(self, seconds: float = 30.0) -> bool:
        """Wait until the worker has heard it all; False when it has not in that time."""
        return self._teller.wait_told(seconds)

    def close(self) -> None:
        """Nothing more is read by this plan."""
        self._teller.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def plan(paths: Sequence[Read], *, dataset: str = "", root: str = "", rank: int = 0) -> Plan:
    """Say what this process reads next, in order; keep the result as long as that holds.

    `paths`: cacheop:// URLs, or (URL, start, end) for some bytes of a file; or paths below the
    mount `root` of `dataset`, which is found by itself where `cacheop up` mounted it. `rank` tells
    processes of one job (CACHEOP_READER, else one process group) from each other.
    """
    made = Plan(paths, dataset=dataset, root=root, rank=rank)
    made.publish(0, range(len(paths)))
    return made


class _Rows:
    """Paths to rows, once, on the teller's thread."""

    def __init__(self, paths: Sequence[Read], head: str, root: str, options: Options) -> None:
        self._paths, self._head, self._root, self._options = paths, head, root, options
        self._source: CachedDataset | None = None
        self._reads: Reads | None = None

    def connect(self) -> WorkerLink:
        """To the Dataset's worker; a line of our own."""
        target = url.parse_head(self._head, own_namespace())
        self._source = attach_worker(target, self._options)
        return self._source.link

    def of(self, numbers: Sequence[int]) -> Reads:
        """The reads of some of the paths."""
        if self._reads is None:
            assert self._source is not None, "connected first"
            self._reads = self._look_up(self._source.tree)
        whole = self._reads
        rows = array("I", map(whole.rows.__getitem__, numbers))
        if whole.chunks is None:
            return Reads(rows)
        both = ((whole.chunks[2 * n], whole.chunks[2 * n + 1]) for n in numbers)
        return Reads(rows, array("I", (number for pair in both for number in pair)))

    def _look_up(self, tree: Tree) -> Reads:
        reads, missing = Reads(), 0
        for path in self._paths:
            name, span = (path, None) if isinstance(path, str) else (path[0], path[1:])
            row = _row(tree, self._below(name))
            missing += row == NO_ROW
            reads.rows.append(row)
            if span is None and reads.chunks is None:
                continue
            if reads.chunks is None:
                reads.chunks = array("I", [0]) * (2 * len(reads.rows) - 2)
            reads.chunks.extend((0, 0) if span is None else _chunks(tree, row, *span))
        if missing:
            log.warning(
                "cacheop: %d of %d planned files are not in version %s of %s",
                missing, len(reads), tree.index.version, self._head,
            )  # fmt: skip
        return reads

    def _below(self, path: str) -> str | None:
        """The path in the Dataset; None: of another."""
        if self._root:
            below = os.path.abspath(path)
            return below[len(self._root) :] if below.startswith(self._root) else None
        head, rest = url.split(url.strip(path))
        return rest if head == self._head else None


def _row(tree: Tree, path: str | None) -> int:
    try:
        return tree.file(path)[0] if path is not None else NO_ROW
    except OSError:
        return NO_ROW


def _chunks(tree: Tree, row: int, start: int, end: int) -> tuple[int, int]:
    if row == NO_ROW:
        return 0, 0
    size = tree.index.size(row)
    chunks = chunks_of_span(size, start, max(0, min(end, size) - start))
    return chunks.start, len(chunks)


def _place(paths: Sequence[Read], dataset: str, root: str) -> tuple[str, str]:
    """(how the Dataset's URLs begin, the mount that the paths lie below, with a slash, or "")."""
    first = next(iter(paths), "")
    first = first if isinstance(first, str) else first[0]
    if root or os.path.isabs(first):
        root = os.path.abspath(root) if root else ""
        for record in local.all_records():
            below = f"{root or os.path.abspath(first)}/".startswith(f"{record.mount}/")
            if record.mount and below and not dataset:
                dataset, root = f"{record.name}.{record.namespace}", root or record.mount
        if not dataset or not root:
            raise UserError(
                f"whose files are {first}?", hint="Say plan(paths, dataset=NAME, root=MOUNT)"
            )
        return dataset, root.rstrip("/") + "/"
    return dataset or url.split(url.strip(first))[0], ""
