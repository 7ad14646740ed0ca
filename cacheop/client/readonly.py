"""Everything of fsspec's interface that writes, refused the same way."""

from __future__ import annotations

import errno
from typing import Any, NoReturn


def refuse(path: object = "") -> NoReturn:
    """Raise the one error for all of them."""
    raise OSError(
        errno.EROFS,
        "cacheop:// is read-only: write to the origin itself, then `cacheop refresh`",
        str(path),
    )


def _refused(_self: object, path: object = "", *_args: Any, **_kwargs: Any) -> NoReturn:
    refuse(path)


async def _refused_async(_self: object, path: object = "", *_args: Any, **_kwargs: Any) -> NoReturn:
    refuse(path)


class ReadOnly:
    """Goes before fsspec's class among the bases."""

    mkdir = makedirs = rmdir = touch = rm = rm_file = _refused
    cp_file = copy = mv = put = put_file = pipe = pipe_file = _refused
    write_text = write_bytes = makedir = mkdirs = cp = move = rename = delete = upload = _refused
    start_transaction = _refused
    _mkdir = _makedirs = _rm = _rm_file = _cp_file = _copy = _mv_file = _refused_async
    _put = _put_file = _pipe = _pipe_file = _touch = _refused_async
