"""The demo's dataset: small JPEG files in class folders, and a few large shards. Seeded.

The images are real and can be learned: each class has a pattern of its own under noise. A few
hundred are encoded; the others are copies with a comment of their own after the end-of-image
marker, which decoders ignore, so that no two files have the same bytes.
"""

from __future__ import annotations

import io
import json
import math
import random
import shutil
import tarfile
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = 10
SIDE_PIXELS = 128
_BASES_PER_CLASS = 30
_READY = "ready.json"


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the dataset is made of; equal recipes make equal bytes."""

    images: int = 20_000
    shards: int = 4
    shard_bytes: int = 64 << 20
    seed: int = 7


QUICK = Recipe(images=600, shards=1, shard_bytes=16 << 20)


def image_keys(recipe: Recipe) -> list[str]:
    """The paths of all images, in order; image i is of class i % CLASSES."""
    return [f"train/class{i % CLASSES}/{i:06d}.jpg" for i in range(recipe.images)]


def shard_keys(recipe: Recipe) -> list[str]:
    """The paths of all shards."""
    return [f"shards/{i:03d}.tar" for i in range(recipe.shards)]


def label_of(key: str) -> int:
    """The class of an image, read from its path."""
    return int(key.split("/")[-2].removeprefix("class"))


def make(folder: Path, recipe: Recipe) -> None:
    """Write the dataset into `folder`; at once done when it is there already."""
    ready = folder / _READY
    if ready.exists() and json.loads(ready.read_text()) == asdict(recipe):
        return
    shutil.rmtree(folder, ignore_errors=True)
    bases = [
        [_jpeg(label, n, recipe.seed) for n in range(_BASES_PER_CLASS)] for label in range(CLASSES)
    ]
    for label in range(CLASSES):
        (folder / "data" / f"train/class{label}").mkdir(parents=True)
    for number, key in enumerate(image_keys(recipe)):
        base = bases[number % CLASSES][number // CLASSES % _BASES_PER_CLASS]
        (folder / "data" / key).write_bytes(base + f"cacheop demo {recipe.seed}.{number}".encode())
    (folder / "data" / "shards").mkdir()
    for number, key in enumerate(shard_keys(recipe)):
        _write_shard(folder / "data" / key, recipe, number)
    # Last, so that an interrupted run is made again.
    ready.write_text(json.dumps(asdict(recipe)))


def total_bytes(folder: Path) -> int:
    """The size of the dataset as an origin would list it."""
    return sum(path.stat().st_size for path in (folder / "data").rglob("*") if path.is_file())


def _jpeg(label: int, number: int, seed: int) -> bytes:
    """A grating whose angle is the class, its phase and the noise are the image's own."""
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng((seed, label, number))
    y, x = np.mgrid[0:SIDE_PIXELS, 0:SIDE_PIXELS]
    angle = math.pi * label / CLASSES
    wave = np.sin((x * math.cos(angle) + y * math.sin(angle)) * 0.35 + noise.uniform(0, 6.28))
    pixels = 128 + 60 * wave[..., None] + noise.normal(0, 40, (SIDE_PIXELS, SIDE_PIXELS, 3))
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def _write_shard(path: Path, recipe: Recipe, number: int) -> None:
    member_bytes = 1 << 20
    noise = random.Random(f"{recipe.seed}/{number}")
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for index in range(recipe.shard_bytes // member_bytes):
            info = tarfile.TarInfo(f"{index:05d}.bin")
            info.size = member_bytes
            tar.addfile(info, io.BytesIO(noise.randbytes(member_bytes)))
