"""A directory's entries as READDIR and READDIRPLUS want them, from the index's columns. Pure.

kernel.directory_entry says the same of one entry; here the columns are sliced once an answer and an
entry costs one `pack`. A walk over a million files is as fast as this loop.
"""

from __future__ import annotations

import struct
from functools import cache
from typing import TYPE_CHECKING

from cache_worker.mounts import kernel
from cacheop.api.index import DIRECTORY

if TYPE_CHECKING:
    from cacheop.api.index import Index

_DIRENT = "QQII"  # node, next offset, name bytes, type; then the name, filled up to 8 bytes
_PLUS = "QQQQIIQQQQQQIIIIIIIIII" + _DIRENT  # fuse_entry_out (with its fuse_attr) before it
_NAME_ALIGN = 8
_SECOND_NS = 1_000_000_000
_UNSIGNED = 0xFFFFFFFFFFFFFFFF
_TYPE_SHIFT = 12
_FILE, _DIRECTORY = kernel.S_IFREG | 0o444, kernel.S_IFDIR | 0o555


def entries(index: Index, rows: range, next_offset: int, limit_bytes: int, *, plus: bool) -> bytes:
    """The entries at `rows`, as many as fit; behind the first one, `next_offset` is where to go on.

    `rows` are neighbours, as Index.children gives them.
    """
    least_bytes = _layout(1, plus=plus).size
    rows = rows[: limit_bytes // least_bytes]
    names, kinds = index.entries(rows)
    sizes, mtimes = index.attributes(rows) if plus else ([], [])
    parts: list[bytes] = []
    left_bytes = limit_bytes
    for number, name in enumerate(names):
        length = len(name)
        layout = _layout(length, plus=plus)
        left_bytes -= layout.size
        if left_bytes < 0:
            break
        node, offset = rows.start + number + 2, next_offset + number
        mode = _DIRECTORY if kinds[number] == DIRECTORY else _FILE
        if not plus:
            parts.append(layout.pack(node, offset, length, mode >> _TYPE_SHIFT, name))
            continue
        size = sizes[number]
        seconds, ns = divmod(mtimes[number], _SECOND_NS)
        seconds &= _UNSIGNED
        part = layout.pack(
            node, 0, kernel.FOREVER_SECONDS, kernel.FOREVER_SECONDS, 0, 0,
            node, size, (size + 511) >> 9, seconds, seconds, seconds, ns, ns, ns,
            mode, 1, 0, 0, 0, kernel.READ_MAX_BYTES, 0,
            node, offset, length, mode >> _TYPE_SHIFT, name,
        )  # fmt: skip
        parts.append(part)
    return b"".join(parts)


@cache  # names have at most 255 bytes
def _layout(name_bytes: int, *, plus: bool) -> struct.Struct:
    """An entry with a name of `name_bytes`; `pack` fills the name up with zeros."""
    padded = -(-name_bytes // _NAME_ALIGN) * _NAME_ALIGN
    return struct.Struct(f"<{_PLUS if plus else _DIRENT}{padded}s")
