"""The coroutines of the file system: its direct methods, at once where nothing waits, else in a
thread.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from fsspec.asyn import AsyncFileSystem

from cacheop.client import url
from cacheop.client.file import AsyncFile
from cacheop.client.readonly import refuse

if TYPE_CHECKING:
    from collections.abc import Callable

    from cacheop.client.locate import Source
    from cacheop.client.tree import Info

THREADS = 16  # for coroutines that wait; more would not fill a cache faster
T = TypeVar("T")


class Coroutines(AsyncFileSystem):  # type: ignore[misc] # fsspec has no types
    """What a file system with direct methods needs to be fsspec's asynchronous one too."""

    _by_head: dict[str, Source]
    _pool: ThreadPoolExecutor | None
    """This process's; a forked child makes its own."""

    def _attached(self, path: str) -> tuple[Source, str] | None:
        """(source, path in it) if it was found before: finding it may wait."""
        head, rest = url.split(self._strip_protocol(path))
        source = self._by_head.get(head)
        return None if source is None else (source, rest)

    async def _cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **_: Any
    ) -> bytes:
        attached = self._attached(path)
        if attached is not None:
            data = attached[0].try_read(attached[1], start, end)
            if data is not None:
                return data
        return await self._away(self.cat_file, path, start, end)

    async def _cat(
        self, path: Any, recursive: bool = False, on_error: str = "raise", **_: Any
    ) -> Any:
        return await self._away(self.cat, path, recursive, on_error)

    async def _cat_ranges(
        self,
        paths: list[str],
        starts: Any,
        ends: Any,
        max_gap: int | None = None,
        batch_size: int | None = None,  # noqa: ARG002 - fsspec's; the worker limits itself
        on_error: str = "return",
        **_: Any,
    ) -> list[Any]:
        return await self._away(self.cat_ranges, paths, starts, ends, max_gap, on_error)

    async def _get_file(self, rpath: str, lpath: Any, **kwargs: Any) -> None:
        await self._away(lambda: self.get_file(rpath, lpath, **kwargs))

    async def _info(self, path: str, **_: Any) -> Info:
        return await self._looked(path, self.info, path)

    async def _ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        return await self._looked(path, self.ls, path, detail)

    async def _find(
        self, path: str, maxdepth: int | None = None, withdirs: bool = False, **kwargs: Any
    ) -> Any:
        detail = kwargs.get("detail", False)
        return await self._looked(path, self.find, path, maxdepth, withdirs, detail)

    async def _du(
        self, path: str, total: bool = True, maxdepth: int | None = None, **_: Any
    ) -> Any:
        return await self._looked(path, self.du, path, total, maxdepth)

    async def open_async(self, path: str, mode: str = "rb", **_: Any) -> AsyncFile:
        """A file object whose read is awaited."""
        if mode != "rb":
            refuse(path)
        file = await self._away(self.open, path)
        return AsyncFile(file, self._away, self.info(path)["size"])

    async def _looked(self, path: str, function: Callable[..., T], *args: Any) -> T:
        """At once when the index is at hand, else in a thread."""
        attached = self._attached(path)
        if attached is not None and not attached[0].waits:
            return function(*args)
        return await self._away(function, *args)

    async def _away(self, function: Callable[..., T], *args: Any) -> T:
        """In a thread of ours."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="cacheop")
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *args)
