"""`cacheop://` for fsspec.

fsspec's own way is to write coroutines and to run them on a thread for synchronous callers, which
costs 100 us a call. A file that is whole in the cache takes a fifth of that, so here the
synchronous methods are the direct ones, and the coroutines (coroutines.py) call them.
`mirror_sync_methods` is off for that reason.

Safe over a fork: no thread or lock of the parent is needed, the mapped files go on, and the child
binds connections of its own.
"""

from __future__ import annotations

import os
import threading
import weakref
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fsspec.asyn import get_loop
from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.core import has_magic
from fsspec.spec import AbstractFileSystem
from fsspec.utils import isfilelike, stringify_path

from cacheop.client import url
from cacheop.client.coroutines import Coroutines
from cacheop.client.file import copy
from cacheop.client.locate import Options, Source, attach, own_namespace, started_here
from cacheop.client.readonly import ReadOnly, refuse

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from cacheop.client.link import Patience
    from cacheop.client.tree import Info

_PREFIX = f"{url.PROTOCOL}://"


class CacheopFileSystem(ReadOnly, Coroutines):
    """Reads Datasets: `dataset[.namespace][@version]/path`.

    namespace: of Datasets named without one. mount, cache, endpoint, token: where to look, instead
    of $CACHEOP_MOUNT, $CACHEOP_CACHE, $CACHEOP_ENDPOINT, $CACHEOP_TOKEN and the records of
    `cacheop up`. fallback: when no worker answers, read the origin (`origin` with `origin_options`,
    else the one in the record) through fsspec, with a warning; a file that is no longer the one of
    the version is OriginChanged. patience: how long to wait for what.

    A URL without a version stays with the one that was current at its first use in this process,
    until `invalidate_cache`.
    """

    protocol = url.PROTOCOL
    mirror_sync_methods = False
    root_marker = ""

    def __init__(
        self,
        *,
        namespace: str = "",
        mount: str = "",
        cache: str = "",
        endpoint: str = "",
        token: str = "",
        fallback: bool = False,
        origin: str = "",
        origin_options: dict[str, Any] | None = None,
        patience: Patience | None = None,
        asynchronous: bool = False,
        loop: asyncio.AbstractEventLoop | None = None,
        batch_size: int | None = None,
        **storage_options: Any,
    ) -> None:
        # Not AsyncFileSystem's: it starts fsspec's event loop thread, which nothing here needs.
        self.asynchronous = asynchronous
        self.batch_size = batch_size
        self._given_loop = loop
        AbstractFileSystem.__init__(self, **storage_options)
        self._namespace = namespace or own_namespace()
        self._options = Options(
            mount, cache, endpoint, token, fallback, origin, dict(origin_options or {}), patience
        )
        self._by_head: dict[str, Source] = {}  # how a URL begins -> one of _sources
        self._sources: dict[url.Target, Source] = {}
        self._inherited: dict[url.Target, Source] = {}  # from before a fork, not yet bound again
        self._attaching = threading.Lock()  # guards the three above; held while a worker is found
        self._pool = None
        _instances[id(self)] = self

    # -- where things are -------------------------------------------------------------------------

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop fsspec would run our coroutines on; only made if somebody asks."""
        if self.asynchronous:
            return None
        return self._given_loop or get_loop()

    @property
    def fsid(self) -> str:
        """The same wherever the same names mean the same data."""
        return f"cacheop_{self._namespace}"

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(p) for p in path]
        return url.strip(stringify_path(path))

    def invalidate_cache(self, path: str | None = None) -> None:
        """Look for workers and current versions anew at the next use. Open files go on."""
        with self._attaching:
            sources, self._sources, self._by_head = self._sources, {}, {}
            self._inherited = {}
        for source in sources.values():
            source.close()
        super().invalidate_cache(path)

    def _at(self, path: str) -> tuple[Source, str, str]:
        """(source, path in it, head) of a path or URL."""
        if path.__class__ is not str:
            path = stringify_path(path)
        if path.startswith(_PREFIX):
            path = path[10:]
        head, _, rest = path.partition("/")
        source = self._by_head.get(head)
        if source is None:
            head, rest = url.split(url.strip(path))
            source = self._attach(head)
        return source, rest, head

    def _attach(self, head: str) -> Source:
        target = url.parse_head(head, self._namespace)
        with self._attaching:
            source = self._sources.get(target)
            if source is None:
                source = self._inherited.pop(target, None)
                if source is not None:
                    source.rebind()
                else:
                    source = attach(target, self._options)
                self._sources[target] = source
            self._by_head[head] = source
        return source

    def _after_fork(self) -> None:
        """In the child: another thread of the parent may have held the lock."""
        self._attaching = threading.Lock()
        self._pool = None
        for source in self._sources.values():
            source.after_fork()
        self._inherited.update(self._sources)
        self._sources, self._by_head = {}, {}

    # -- reading ----------------------------------------------------------------------------------

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **_: Any
    ) -> bytes:
        """Bytes [start, end) of a file, as a slice would give them."""
        source, rest, _head = self._at(path)
        return source.read(rest, start, end)

    def cat(
        self, path: Any, recursive: bool = False, on_error: str = "raise", **kwargs: Any
    ) -> Any:
        """The bytes of a file, or {path: bytes} of a list, a pattern or a tree."""
        paths = self.expand_path(path, recursive=recursive, **kwargs)
        single = isinstance(path, str) and paths == [self._strip_protocol(path)]
        if single and not (recursive and self.isdir(path)):
            return self.cat_file(path)
        if recursive:
            paths = [p for p in paths if not self.isdir(p)]
        found = self.cat_ranges(paths, None, None, on_error="return")
        out: dict[str, Any] = {}
        for name, data in zip(paths, found, strict=True):
            if isinstance(data, BaseException):
                if on_error == "raise":
                    raise data
                if on_error == "omit":
                    continue
            out[name] = data
        return out

    def expand_path(
        self, path: Any, recursive: bool = False, maxdepth: int | None = None, **kwargs: Any
    ) -> list[str]:
        """As fsspec's, but a file whose name looks like a pattern, as `a[1].jpg`, is that file."""
        given = [path] if isinstance(path, str) else list(path)
        literal = {self._strip_protocol(p) for p in given if has_magic(p) and self.isfile(p)}
        rest = [p for p in given if self._strip_protocol(p) not in literal]
        if not literal or rest:
            literal.update(super().expand_path(rest, recursive, maxdepth, **kwargs))
        return sorted(literal)

    def cat_ranges(
        self,
        paths: list[str],
        starts: Any,
        ends: Any,
        max_gap: int | None = None,
        on_error: str = "return",
        **_: Any,
    ) -> list[Any]:
        """Many ranges; those that are not cached are fetched at the same time.

        `max_gap` is for stores where a request costs much; here chunks come whole anyway.
        """
        del max_gap
        if not isinstance(paths, list):
            raise TypeError("paths must be a list")
        all_starts, all_ends = _listed(starts, len(paths)), _listed(ends, len(paths))
        out: list[Any] = [None] * len(paths)
        by_source: dict[
            int, tuple[Source, list[int], list[tuple[str, int | None, int | None]]]
        ] = {}
        for number, (path, start, end) in enumerate(zip(paths, all_starts, all_ends, strict=True)):
            try:
                source, rest, _head = self._at(path)
            except OSError as error:
                out[number] = error
                continue
            _source, numbers, spans = by_source.setdefault(id(source), (source, [], []))
            numbers.append(number)
            spans.append((rest, start, end))
        for source, numbers, spans in by_source.values():
            for number, data in zip(numbers, source.read_many(spans), strict=True):
                out[number] = data
        if on_error == "raise":
            for data in out:
                if isinstance(data, BaseException):
                    raise data
        return out

    def open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        cache_options: dict[str, Any] | None = None,
        compression: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """A file object; of a file that is whole in the cache a real one, with its fileno()."""
        if mode == "rb" and compression is None:
            source, rest, _head = self._at(path)
            return source.open(rest)
        if "r" not in mode or "+" in mode:
            refuse(path)
        return super().open(path, mode, block_size, cache_options, compression, **kwargs)

    def _open(self, path: str, mode: str = "rb", *_: Any, **__: Any) -> Any:
        if mode != "rb":
            refuse(path)
        source, rest, _head = self._at(path)
        return source.open(rest)

    def get_file(self, rpath: str, lpath: Any, callback: Any = DEFAULT_CALLBACK, **_: Any) -> None:
        """Copy a file's data to a local path or an open file."""
        if not isfilelike(lpath):
            if self.isdir(rpath):
                os.makedirs(lpath, exist_ok=True)
                return
            os.makedirs(os.path.dirname(os.path.abspath(lpath)), exist_ok=True)
        with self.open(rpath) as source:
            if isfilelike(lpath):
                copy(source, lpath, callback)
            else:
                with open(lpath, "wb") as out:
                    copy(source, out, callback)

    # -- looking ----------------------------------------------------------------------------------

    def info(self, path: str, **_: Any) -> Info:
        """name, size, type, and of files mtime, created, and ETag and VersionId where known."""
        if not url.strip(path):
            return {"name": "", "size": 0, "type": "directory"}
        source, rest, head = self._at(path)
        return source.info(rest.strip("/"), head)

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """The entries of a directory, sorted by name; of a file, itself; at the top, Datasets."""
        if not url.strip(path):
            tops = [f"{r.dataset}.{r.namespace}" for r in started_here()]
            return [self.info("") | {"name": top} for top in tops] if detail else tops
        source, rest, head = self._at(path)
        rest = rest.strip("/")
        return source.list(rest, head) if detail else list(source.list_names(rest, head))

    def find(
        self,
        path: str,
        maxdepth: int | None = None,
        withdirs: bool = False,
        detail: bool = False,
        **_: Any,
    ) -> Any:
        """All files below `path`, sorted; {path: info} with `detail`."""
        if maxdepth is not None and maxdepth < 1:
            raise ValueError("maxdepth must be at least 1")
        source, rest, head = self._at(path)
        return source.find(
            rest.strip("/"), head, maxdepth=maxdepth, withdirs=withdirs, detail=detail
        )

    def exists(self, path: str, **_: Any) -> bool:
        """Whether it is there. Raises WorkerUnavailable: no answer is not a no."""
        try:
            self.info(path)
        except FileNotFoundError:
            return False
        return True

    def isfile(self, path: str) -> bool:
        """Whether it is a file."""
        return self._type(path) == "file"

    def isdir(self, path: str) -> bool:
        """Whether it is a directory."""
        return self._type(path) == "directory"

    def _type(self, path: str) -> str:
        try:
            return str(self.info(path)["type"])
        except FileNotFoundError:
            return ""

    def du(
        self,
        path: str,
        total: bool = True,
        maxdepth: int | None = None,
        withdirs: bool = False,
        **_: Any,
    ) -> Any:
        """Bytes below `path`, or {path: bytes} of each file."""
        found = self.find(path, maxdepth=maxdepth, withdirs=withdirs, detail=True)
        sizes = {name: info["size"] for name, info in found.items()}
        return sum(sizes.values()) if total else sizes

    def ukey(self, path: str) -> str:
        """Changes when the content does, and only then (as far as the origin tells)."""
        source, rest, _head = self._at(path)
        return source.content(rest.strip("/"))

    def checksum(self, path: str) -> int:
        """`ukey` as a number, as fsspec wants it."""
        key = self.ukey(path)
        try:
            return int(key, 16)
        except ValueError:
            return int.from_bytes(key.encode(), "big")

    def created(self, path: str) -> datetime:
        """The same as `modified`: origins tell one time."""
        return self.modified(path)

    def modified(self, path: str) -> datetime:
        """When the origin says that the file was written."""
        info = self.info(path)
        seconds = info.get("mtime")
        if isinstance(seconds, int | float):
            return datetime.fromtimestamp(seconds, UTC)
        found: datetime = info["LastModified"]
        return found


def _listed(value: Any, count: int) -> Sequence[int | None]:
    """One value for all, or one for each."""
    if value is None or isinstance(value, int):
        return [value] * count
    values = list(value)
    if len(values) != count:
        raise ValueError(f"{len(values)} bounds for {count} paths")
    return values


# Every instance of this process, so that a forked child can let go of the parent's sockets.
_instances: weakref.WeakValueDictionary[int, CacheopFileSystem] = weakref.WeakValueDictionary()


def _forked() -> None:
    for instance in list(_instances.values()):
        instance._after_fork()


os.register_at_fork(after_in_child=_forked)
