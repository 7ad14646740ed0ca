"""What a node holds, from its own table, as its readers see it; and how to spoil it."""

from __future__ import annotations

import contextlib
import mmap
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cacheop.api import names
from cacheop.api.chunk import CHUNK_BYTES, chunk_count
from cacheop.api.index import Index
from cacheop.api.table import ChunkTable, Slots

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fakes.lab.nodes import LabNode


@dataclass(frozen=True, slots=True)
class Held:
    """A chunk that is present and, as far as the node knows, good."""

    path: str
    row: int
    chunk: int
    length: int


def held_chunks(node: LabNode) -> set[Held]:
    """Those of the node's current version. The node may be dead: its files tell."""
    version = node.version
    with (
        _mapped(node.root / names.index_path(version)) as index_file,
        _mapped(node.root / names.slots_path(version)) as slots_file,
        _mapped(node.root / names.CHUNK_TABLE) as table_file,
    ):
        # Copies of the small ones: nothing points into the maps when they are closed.
        index, slots = Index(bytes(index_file)), Slots(bytes(slots_file))
        view = memoryview(table_file)
        table = ChunkTable(view)
        found = set()
        for row in slots.rows_by_slot():
            size, first, path = index.size(row), slots.first_slot(row), index.path(row)
            for chunk in range(chunk_count(size)):
                if table.is_present(first + chunk):
                    length = min(CHUNK_BYTES, size - chunk * CHUNK_BYTES)
                    found.add(Held(path, row, chunk, length))
        return found


def flip(node: LabNode, held: Held) -> None:
    """Turn a bit of a chunk over on the node's disk, behind its back."""
    path = node.root / names.data_path(node.version) / held.path
    with path.open("r+b") as file:
        file.seek(held.chunk * CHUNK_BYTES + held.length // 2)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))


@contextlib.contextmanager
def _mapped(path: Path) -> Iterator[mmap.mmap]:
    with path.open("rb") as file:
        yield mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
