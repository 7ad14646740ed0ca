"""A small image classifier trained from any place that fsspec can open, and what it waited for.

The loader is the same for all ways: same batches, same number of loader processes, same decoding.
Only the file system differs. It is opened inside the loader processes, so nothing is inherited
through the fork.
"""

from __future__ import annotations

import io
import multiprocessing
import signal
import time
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from examples.demo.data import CLASSES, label_of
from examples.demo.interrupts import WAYS_TO_END, held_back

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from multiprocessing.synchronize import Event

    from fsspec import AbstractFileSystem

BATCH_IMAGES = 64
# More than a 2-core machine likes: readers of slow storage wait, they do not compute.
LOADER_PROCESSES = 12
SIDE_PIXELS = 64
SEED = 7

Batch = tuple[torch.Tensor, torch.Tensor, int]


@dataclass(frozen=True, slots=True)
class Source:
    """One way to the dataset: an fsspec protocol, its options, and what precedes each key."""

    protocol: str
    root: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def open(self) -> AbstractFileSystem:
        """The file system, a new one."""
        import fsspec

        return fsspec.filesystem(self.protocol, skip_instance_cache=True, **self.options)


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch took. `payload_bytes` is the size of the files it read."""

    samples: int
    wall_seconds: float
    wait_seconds: float
    compute_seconds: float
    payload_bytes: int
    loss: float

    @property
    def samples_per_second(self) -> float:
        """Trained samples a second."""
        return self.samples / self.wall_seconds

    @property
    def wait_share(self) -> float:
        """The part of the time in which training waited for data."""
        return self.wait_seconds / self.wall_seconds

    @property
    def utilisation(self) -> float:
        """The part of the time in which the accelerator (here perhaps a CPU) computed."""
        return self.compute_seconds / self.wall_seconds


class Images(Dataset[tuple[torch.Tensor, int, int]]):  # type: ignore[misc]  # torch is not typed here
    """Decoded images with their class and the size of their file."""

    def __init__(self, source: Source, keys: Sequence[str], closed: Event) -> None:
        self._source = source
        self._keys = keys
        self._closed = closed
        self._files: AbstractFileSystem | None = None

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int, int]:
        if self._closed.is_set():  # torch's loader would first read its whole batch
            raise InterruptedError("the trainer was closed")
        if self._files is None:
            self._files = self._source.open()
        key = self._keys[index]
        content = self._files.cat_file(f"{self._source.root}{key}")
        return _decode(content), label_of(key), len(content)


def _decode(content: bytes) -> torch.Tensor:
    import numpy as np
    from PIL import Image

    image = Image.open(io.BytesIO(content))
    image.draft("RGB", (SIDE_PIXELS, SIDE_PIXELS))  # lets the decoder halve the size on the way
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)


def _collate(samples: list[tuple[torch.Tensor, int, int]]) -> Batch:
    images, labels, sizes = zip(*samples, strict=True)
    return torch.stack(images), torch.tensor(labels), sum(sizes)


def _own_signals(_number: int) -> None:
    """In a loader process: ^C is its parent's affair, SIGTERM simply ends it.

    With the parent's handlers it would raise KeyboardInterrupt wherever it is, and say so.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, WAYS_TO_END)


class Trainer:
    """One model trained epoch by epoch through one source. Owns the loader's processes: `close`."""

    def __init__(self, source: Source, keys: Sequence[str]) -> None:
        torch.manual_seed(SEED)
        # The loader's processes need a core too; on a GPU this does not matter.
        torch.set_num_threads(1)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        # torch counts cores and warns; see LOADER_PROCESSES.
        warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
        self._model = _model().to(self._device)
        self._optimizer = torch.optim.AdamW(self._model.parameters(), lr=1e-3)
        context = multiprocessing.get_context("fork")
        self._closed = context.Event()
        self._loader: DataLoader[Batch] | None = DataLoader(
            Images(source, keys, self._closed),
            batch_size=BATCH_IMAGES,
            shuffle=True,
            num_workers=min(LOADER_PROCESSES, max(1, len(keys) // BATCH_IMAGES)),
            collate_fn=_collate,
            generator=torch.Generator().manual_seed(SEED),
            persistent_workers=True,
            timeout=120,
            multiprocessing_context=context,
            worker_init_fn=_own_signals,
        )

    def epoch(self) -> Epoch:
        """Train on every sample once."""
        assert self._loader is not None, "this trainer is closed"
        wait = compute = loss = 0.0
        samples = payload_bytes = 0
        began = time.perf_counter()
        # The loader's processes begin with these signals blocked, until `_own_signals`.
        with held_back():
            batches = iter(self._loader)
        for waited, (images, labels, sizes) in _timed(batches):
            wait += waited
            start = time.perf_counter()
            loss = self._step(images, labels)
            compute += time.perf_counter() - start
            samples += len(labels)
            payload_bytes += sizes
        return Epoch(samples, time.perf_counter() - began, wait, compute, payload_bytes, loss)

    def close(self) -> None:
        """End the loader's processes, now: an exception on its way up would keep them alive."""
        self._closed.set()
        loader, self._loader = self._loader, None
        iterator = getattr(loader, "_iterator", None)
        if iterator is not None:
            with held_back():
                iterator._shutdown_workers()  # torch has no public way

    def _step(self, images: torch.Tensor, labels: torch.Tensor) -> float:
        pixels = images.to(self._device, torch.float32).div_(255).sub_(0.5)
        loss = nn.functional.cross_entropy(self._model(pixels), labels.to(self._device))
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        return float(loss.detach())  # waits for the device, so that compute time is computing time


def _timed(batches: Iterator[Batch]) -> Iterator[tuple[float, Batch]]:
    """Each batch with the seconds that `next` blocked for it."""
    while True:
        start = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            return
        yield time.perf_counter() - start, batch


def _model() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(),
        nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
        nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, CLASSES),
    )  # fmt: skip
