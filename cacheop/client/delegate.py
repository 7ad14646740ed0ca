"""A Dataset read through other fsspec file systems: a mount's directory, or the origin itself."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cacheop.api.errors import NotFoundError

if TYPE_CHECKING:
    import builtins
    from collections.abc import Sequence

    from cacheop.client.dataset import Span
    from cacheop.client.tree import Info


@dataclass(frozen=True, slots=True)
class Part:
    """`root` of the file system `fs` appears at `path` of the Dataset (no slashes at its ends)."""

    path: str
    fs: Any
    root: str

    def real(self, path: str) -> str:
        """The path in `fs` of a path of the Dataset at or below ours."""
        below = path[len(self.path) :].strip("/")
        return f"{self.root}/{below}" if below else self.root

    def ours(self, name: str, base: str) -> str:
        """The way back: what a name that `fs` gave is called in the Dataset."""
        below = name[len(self.root) :].strip("/")
        return "/".join(part for part in (base, self.path, below) if part)

    def told(self, info: Info, base: str) -> Info:
        """`info` with our name."""
        return {**info, "name": self.ours(info["name"], base)}


class DelegatedDataset:
    """The interface of CachedDataset; what it costs and how fresh it is are `fs`'s business."""

    def __init__(self, parts: tuple[Part, ...], *, waits: bool) -> None:
        self._parts = parts
        self.waits = waits

    def read(self, path: str, start: int | None, end: int | None) -> bytes:
        """Bytes [start, end) of a file."""
        part = self.part(path)
        data: bytes = part.fs.cat_file(part.real(path), start=start, end=end)
        return data

    def try_read(self, path: str, start: int | None, end: int | None) -> bytes | None:
        """As `read` where that does not wait."""
        return None if self.waits else self.read(path, start, end)

    def read_many(self, spans: Sequence[Span]) -> builtins.list[bytes | OSError]:
        """As `read` for each; `fs` runs those of one part at the same time."""
        results: dict[int, bytes | OSError] = {}
        by_part: dict[str, builtins.list[tuple[int, Span]]] = {}
        for number, span in enumerate(spans):
            by_part.setdefault(self.part(span[0]).path, []).append((number, span))
        for part in self._parts:
            wanted = by_part.get(part.path, [])
            found = part.fs.cat_ranges(
                [part.real(span[0]) for _, span in wanted],
                [span[1] for _, span in wanted],
                [span[2] for _, span in wanted],
                on_error="return",
            )
            results.update(zip((number for number, _ in wanted), found, strict=True))
        return [results[number] for number in range(len(spans))]

    def open(self, path: str) -> Any:
        """The file object of `fs`; a plain local file where it is local."""
        part = self.part(path)
        if not self.waits:
            return open(part.real(path), "rb")
        return part.fs.open(part.real(path), "rb")

    def info(self, path: str, base: str) -> Info:
        """Fsspec's `info`."""
        part = self._find_part(path)
        if part is None:
            self._between(path)
            return {"name": f"{base}/{path}".rstrip("/"), "size": 0, "type": "directory"}
        return {**part.fs.info(part.real(path)), "name": f"{base}/{path}".rstrip("/")}

    def list(self, path: str, base: str) -> builtins.list[Info]:
        """Fsspec's `ls` with details."""
        part = self._find_part(path)
        if part is not None:
            found = [part.told(info, base) for info in part.fs.ls(part.real(path), detail=True)]
            return sorted(found, key=lambda info: str(info["name"]))
        prefix = f"{base}/{path}".rstrip("/")
        return [
            {"name": f"{prefix}/{name}", "size": 0, "type": "directory"}
            for name in self._between(path)
        ]

    def list_names(self, path: str, base: str) -> builtins.list[str]:
        """Fsspec's `ls` without details."""
        return [info["name"] for info in self.list(path, base)]

    def find(
        self, path: str, base: str, *, maxdepth: int | None, withdirs: bool, detail: bool
    ) -> builtins.list[str] | dict[str, Info]:
        """Fsspec's `find`. Of Datasets with several mounts `maxdepth` counts from each mount."""
        part = self._find_part(path)
        below = [
            p
            for p in self._parts
            if part is None and f"{p.path}/".startswith(f"{path}/".lstrip("/"))
        ]
        infos: dict[str, Info] = {}
        for p in [part] if part is not None else below:
            start = p.real(path) if part is not None else p.root
            found = p.fs.find(start, maxdepth=maxdepth, withdirs=withdirs, detail=True)
            for name, info in found.items():
                ours = p.ours(name, base)
                infos[ours] = {**info, "name": ours}
        names = sorted(infos)
        return {name: infos[name] for name in names} if detail else names

    def content(self, path: str) -> str:
        """What names the content of a file, as `fs` sees it."""
        part = self.part(path)
        return str(part.fs.ukey(part.real(path)))

    def rebind(self) -> None:
        """Nothing is bound."""

    def after_fork(self) -> None:
        """Nothing of ours is held over a fork."""

    def close(self) -> None:
        """Nothing of ours is open."""

    def _find_part(self, path: str) -> Part | None:
        for part in self._parts:
            if not part.path or path == part.path or path.startswith(f"{part.path}/"):
                return part
        return None

    def part(self, path: str) -> Part:
        """Where a file is. Raises IsADirectoryError or NotFoundError."""
        part = self._find_part(path)
        if part is None:
            self._between(path)
            raise IsADirectoryError(path)
        return part

    def _between(self, path: str) -> builtins.list[str]:
        """The entries of a directory above the mounts. Raises NotFoundError."""
        prefix = f"{path}/" if path else ""
        names = {
            p.path[len(prefix) :].split("/")[0] for p in self._parts if p.path.startswith(prefix)
        }
        if not names:
            raise NotFoundError(f"'{path}' is not in the Dataset")
        return sorted(itertools.chain(names))
