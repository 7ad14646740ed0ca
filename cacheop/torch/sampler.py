"""Samplers that tell the cache what they will give. Orders are the inner sampler's, bit for bit.

Whatever goes wrong with a plan costs its benefit and nothing else.
"""

from __future__ import annotations

import copy
import logging
from array import array
from itertools import chain, islice, pairwise
from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader, DistributedSampler, Sampler, SequentialSampler

from cacheop.torch.ranks import planned

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cacheop.client.planning import Read

log = logging.getLogger("cacheop")

ENDLESS_ITEMS = 65_536
"""Of a sampler without a length so many items are taken and told at a time."""


class PlannedSampler(Sampler[Any]):  # type: ignore[misc]  # torch is not typed here
    """Gives what `sampler` gives, after telling the cache; batches too.

    `paths`: the file of each index, as `cacheop.client.plan` takes them; by default those of the
    sampler's dataset. The next epoch is told as well where it follows from seed and epoch.
    """

    def __init__(
        self,
        sampler: Iterable[Any],
        paths: Sequence[Read] | None = None,
        *,
        dataset: str = "",
        root: str = "",
        rank: int | None = None,
    ) -> None:
        self.wrapped: Any = sampler
        if paths is None:
            paths = paths_of(_dataset_of(sampler))
        self._plan = planned(paths, dataset, root, rank)
        self._turn = -1
        self._next: tuple[int, array[int]] | None = None  # what was told of the coming turn
        self._given = self._skip = 0
        self._begun: Any = None  # the state in which the wrapped sampler's iterator began
        self._begin: Any = None

    def __len__(self) -> int:
        return len(self.wrapped)

    def __getattr__(self, name: str) -> Any:
        """What else the sampler inside has: `batch_size`, `sampler`, `epoch`, and so on."""
        if name == "wrapped":
            raise AttributeError(name)
        return getattr(self.wrapped, name)

    def set_epoch(self, epoch: int) -> None:
        """As DistributedSampler's."""
        for sampler in _chain(self.wrapped):
            if hasattr(sampler, "set_epoch"):
                sampler.set_epoch(epoch)

    def __iter__(self) -> Iterator[Any]:
        skip, self._skip = self._skip, 0
        begin, self._begin = self._begin, None
        self._turn += 1
        turn = self._turn
        items = iter(self.wrapped)
        if begin is not None and hasattr(items, "load_state_dict"):
            items.load_state_dict(begin)
        self._begun = items.state_dict() if hasattr(items, "state_dict") else None
        place = self._given = 0
        # No more than it says of itself: some that have a length never end.
        while part := list(islice(items, _length(self.wrapped) or ENDLESS_ITEMS)):
            if place:  # what comes after that is told as a turn of its own
                self._turn = turn = turn + 1
                place = 0
            self._tell(turn, part)
            for item in part:
                place += len(item) if isinstance(item, list | tuple) else 1
                self._given += 1
                if self._given <= skip:
                    continue
                if self._plan is not None:
                    self._plan.reached(turn, place)
                yield item

    def state_dict(self) -> dict[str, Any]:
        """For resuming in mid-epoch, as StatefulDataLoader asks for it."""
        state = {"given": self._given, "begun": self._begun}
        epochs = [s.epoch for s in _chain(self.wrapped) if hasattr(s, "epoch")]
        return {**state, "epoch": epochs[0]} if epochs else state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The next iteration goes on where that state was taken."""
        self._skip, self._begin = int(state["given"]), state.get("begun")
        if "epoch" in state:
            self.set_epoch(int(state["epoch"]))

    def close(self) -> None:
        """Tell nothing more."""
        if self._plan is not None:
            self._plan.close()
            self._plan = None

    def wait_told(self, seconds: float = 30.0) -> bool:
        """Wait until the worker has heard all that is known; False when it has not."""
        return self._plan is not None and self._plan.wait_told(seconds)

    @property
    def state(self) -> str:
        """What the worker makes of the plan: new, kept, wrong, off, full, away; "" without one."""
        return self._plan.state if self._plan is not None else ""

    def _tell(self, turn: int, items: Sequence[Any]) -> None:
        if self._plan is None:
            return
        try:
            indexes = _flat(items)
        except (TypeError, ValueError, OverflowError) as error:
            log.warning("cacheop: training goes on without its plan: no indexes: %s", error)
            self.close()
            return
        if self._next != (turn, indexes):
            self._plan.publish(turn, indexes)
        following = _following(self.wrapped)
        self._next = None
        if following is not None:
            self._next = turn + 1, _flat(following)
            self._plan.publish(*self._next)


def plan(
    loader: DataLoader[Any],
    paths: Sequence[Read] | None = None,
    *,
    dataset: str = "",
    root: str = "",
    rank: int | None = None,
) -> DataLoader[Any]:
    """Make a loader that exists already tell its order; before its first iteration. The loader.

    For trainers that make or replace the sampler themselves: after Accelerate's `prepare`, or in
    Lightning's `on_train_start`.
    """
    name = "sampler" if loader.batch_sampler is None else "batch_sampler"
    paths = paths if paths is not None else paths_of(loader.dataset)
    sampler = PlannedSampler(getattr(loader, name), paths, dataset=dataset, root=root, rank=rank)
    object.__setattr__(loader, name, sampler)  # DataLoader forbids it, for all it has no use of it
    return loader


def paths_of(dataset: Any) -> Sequence[Read]:
    """The file of each index of a dataset: its `paths`, or `samples` as torchvision's folders."""
    if hasattr(dataset, "paths"):
        found: Sequence[Read] = dataset.paths
        return found
    for name in ("samples", "imgs"):
        if hasattr(dataset, name):
            return [sample[0] for sample in getattr(dataset, name)]
    if hasattr(dataset, "indices") and hasattr(dataset, "dataset"):  # torch's Subset
        paths = paths_of(dataset.dataset)
        return [paths[index] for index in dataset.indices]
    raise TypeError(f"{type(dataset).__name__} does not say its files: give paths=")


def _length(sampler: Any) -> int:
    """How many items it says that it gives; 0: it does not say."""
    try:
        return len(sampler)
    except (TypeError, NotImplementedError):
        return 0


def _flat(items: Sequence[Any]) -> array[int]:
    if items and isinstance(items[0], list | tuple):
        return array("I", chain.from_iterable(items))
    return array("I", items)


def _chain(sampler: Any) -> Iterator[Any]:
    """A sampler and those inside it."""
    seen: set[int] = set()
    while sampler is not None and id(sampler) not in seen:
        seen.add(id(sampler))
        yield sampler
        inside = vars(sampler) if hasattr(sampler, "__dict__") else {}
        sampler = inside.get("batch_sampler") or inside.get("sampler") or inside.get("wrapped")


def _dataset_of(sampler: Any) -> Any:
    for inner in _chain(sampler):
        for name in ("data_source", "dataset"):
            if hasattr(inner, name):
                return getattr(inner, name)
    raise TypeError(f"{type(sampler).__name__} does not say its dataset: give paths=")


def _following(sampler: Any) -> list[Any] | None:
    """The next epoch's items, where they follow from seed and epoch; None: unknown."""
    copies = [copy.copy(part) for part in _chain(sampler)]
    for outer, inner in pairwise(copies):
        for name in ("batch_sampler", "sampler", "wrapped"):
            if vars(outer).get(name) is not None:
                setattr(outer, name, inner)
                break
    last = copies[-1]
    if type(last) is SequentialSampler:
        return list(copies[0])
    if isinstance(last, DistributedSampler) and type(last).__iter__ is DistributedSampler.__iter__:
        last.set_epoch(last.epoch + 1)
        return list(copies[0])
    return None
