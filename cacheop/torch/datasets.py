"""Datasets over cacheop://: files by number, and tar shards."""

from __future__ import annotations

import random
import tarfile
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from torch.utils.data import Dataset, IterableDataset, get_worker_info

from cacheop.torch.ranks import own_rank, planned, ranks

if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Iterator, Sequence

    from cacheop.client.filesystem import CacheopFileSystem
    from cacheop.client.planning import Plan


class CacheDataset(Dataset[Any]):  # type: ignore[misc]
    """Map style: file number `index`, as `transform(bytes, path)` makes it, by default the bytes.

    `paths`: cacheop:// URLs, or the URL of a directory, whose files are taken in order of their
    names. A batch's files are read at the same time.
    """

    def __init__(
        self,
        paths: Sequence[str] | str,
        transform: Callable[[bytes, str], Any] | None = None,
        **options: Any,
    ) -> None:
        self._options = options
        self._files: CacheopFileSystem | None = None
        self._transform = transform
        if isinstance(paths, str):
            paths = self._open().find(paths)
        self.paths: Sequence[str] = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Any:
        path = self.paths[index]
        return self._made(self._open().cat_file(path), path)

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """A batch, as torch's fetcher asks for it."""
        paths = [self.paths[index] for index in indices]
        found = self._open().cat_ranges(paths, None, None, on_error="raise")
        return [self._made(data, path) for data, path in zip(found, paths, strict=True)]

    def __getstate__(self) -> dict[str, Any]:
        """Loader processes that are not forks open their own file system."""
        return {**self.__dict__, "_files": None}

    def _made(self, data: bytes, path: str) -> Any:
        return data if self._transform is None else self._transform(data, path)

    def _open(self) -> CacheopFileSystem:
        if self._files is None:
            from cacheop.client.filesystem import CacheopFileSystem

            self._files = CacheopFileSystem(**self._options)
        return self._files


class CacheShards(IterableDataset[Any]):  # type: ignore[misc]
    """Samples of tar shards, as webdataset has them: `transform({"__key__": …, "jpg": bytes, …})`.

    Shards are shuffled by seed and epoch (`set_epoch`), and shared among ranks and their loader
    processes; each tells the cache which shards it will read. Samples come in the shard's order,
    or, with `shuffle` above 0, at random out of so many.
    """

    def __init__(
        self,
        shards: Sequence[str] | str,
        transform: Callable[[dict[str, Any]], Any] | None = None,
        *,
        shuffle: int = 0,
        seed: int = 0,
        plan: bool = True,
        **options: Any,
    ) -> None:
        self._files = CacheDataset(shards, **options)
        self.shards = self._files.paths
        self._transform = transform
        self._shuffle, self._seed, self._plan = shuffle, seed, plan
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Another order; before the loader's iteration."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Any]:
        rank, count = own_rank(), ranks()
        info = get_worker_info()
        if info is not None:
            rank, count = rank * info.num_workers + info.id, count * info.num_workers
        dice = random.Random(f"{self._seed}/{self.epoch}")
        order = list(range(len(self.shards)))
        if self._shuffle:
            dice.shuffle(order)
        mine = [self.shards[number] for number in order[rank::count]]
        told = planned(mine, "", "", rank) if self._plan and mine else None
        if told is not None:
            told.publish(self.epoch, range(len(mine)))
        try:
            samples = self._samples(mine, told)
            yield from _shuffled(samples, self._shuffle, random.Random(f"{dice.random()}/{rank}"))
        finally:
            if told is not None:
                told.close()

    def _samples(self, shards: Sequence[str], told: Plan | None) -> Iterator[Any]:
        files = self._files._open()
        for number, shard in enumerate(shards):
            if told is not None:
                told.reached(self.epoch, number + 1)
            with files.open(shard) as file:
                for sample in _samples_of(file, shard):
                    yield sample if self._transform is None else self._transform(sample)


def _samples_of(file: io.BufferedIOBase, shard: str) -> Iterator[dict[str, Any]]:
    """Members of one name up to its first dot, next to each other, are one sample."""
    sample: dict[str, Any] = {}
    with tarfile.open(fileobj=file, mode="r|") as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isfile() else None
            if content is None:
                continue
            folder, _, name = member.name.rpartition("/")
            stem, _, kind = name.partition(".")
            key = f"{folder}/{stem}" if folder else stem
            if sample and sample["__key__"] != key:
                yield sample
                sample = {}
            sample |= {"__key__": key, "__url__": shard, kind: content.read()}
    if sample:
        yield sample


def _shuffled(samples: Iterator[Any], among: int, dice: random.Random) -> Iterator[Any]:
    waiting = list(islice(samples, among))
    for sample in samples if among else chain(waiting, samples):
        if not waiting:
            yield sample
            continue
        at = dice.randrange(len(waiting))
        waiting[at], sample = sample, waiting[at]  # noqa: PLW2901 - they change places
        yield sample
    dice.shuffle(waiting)
    yield from waiting
