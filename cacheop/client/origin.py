"""The origin of a Dataset as fsspec file systems, for reading without a worker."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cacheop.api import fsspec_info
from cacheop.api.dataset import parse_dataset
from cacheop.api.errors import CredentialError, OriginChanged, OriginError, UserError
from cacheop.client.delegate import DelegatedDataset, Part

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from cacheop.api.errors import WorkerUnavailable
    from cacheop.api.index import Index
    from cacheop.local import RunRecord


class UnchangedOrigin:
    """The files of one version at the origin, as long as they are those of the version.

    For a Dataset whose worker went away. Fsspec has no conditional reads, so a file is looked at
    before and after: bytes of another object are never given out. `open_parts` is called at the
    first read with what the worker's absence looked like; it warns, or raises WorkerUnavailable.
    """

    def __init__(
        self, index: Index, open_parts: Callable[[WorkerUnavailable], tuple[Part, ...]]
    ) -> None:
        self._index = index
        self._open_parts = open_parts
        self._dataset: DelegatedDataset | None = None

    def read(
        self, row: int, path: str, offset: int, length: int, because: WorkerUnavailable
    ) -> bytes:
        """Those bytes of the file at `row`. Raises OriginChanged, OriginError."""
        if self._dataset is None:
            self._dataset = DelegatedDataset(self._open_parts(because), waits=True)
        part = self._dataset.part(path)
        real = part.real(path)
        try:
            self._compare(part.fs, real, row)
            data: bytes = part.fs.cat_file(real, start=offset, end=offset + length)
            self._compare(part.fs, real, row)
        except (OriginError, CredentialError):
            raise
        except FileNotFoundError as error:
            raise self._changed(path, "it is gone") from error
        except OSError as error:
            raise OriginError(f"cannot read '{path}' at its origin: {error}") from error
        if len(data) != length:
            raise self._changed(path, f"{len(data)} bytes came instead of {length}")
        return data

    def after_fork(self) -> None:
        """In the child: fsspec's file systems must not be taken over a fork."""
        self._dataset = None

    def _compare(self, fs: Any, real: str, row: int) -> None:
        fs.invalidate_cache()
        info = fs.info(real)
        index = self._index
        etag, found = index.etag(row).strip('"'), fsspec_info.etag(info).strip('"')
        if info.get("size") != index.size(row):
            raise self._changed(real, f"its size is {info.get('size')}, not {index.size(row)}")
        if etag and found:
            if etag != found:
                raise self._changed(real, f"its etag is {found}, not {etag}")
        elif fsspec_info.mtime_ns(info) // 10**9 != index.mtime_ns(row) // 10**9:
            raise self._changed(real, "it was modified")

    def _changed(self, path: str, what: str) -> OriginChanged:
        return OriginChanged(
            f"'{path}' is no longer the object of version {self._index.version}: {what}",
            hint="Start the worker and `cacheop refresh`",
        )


def parts_of_url(url: str, options: Mapping[str, Any]) -> tuple[Part, ...]:
    """The Dataset whose only mount is `url`. Raises UserError if fsspec cannot open it."""
    return (_part("", url, options),)


def parts_of_record(record: RunRecord, options: Mapping[str, Any]) -> tuple[Part, ...]:
    """The mounts of a Dataset that `cacheop up` knows; `options` go over the Dataset's own."""
    config = record.nodes[0].config
    try:
        raw = json.loads(config.read_text())
        dataset = parse_dataset(raw["dataset"])
        secrets = config.parent / "secrets" if "secrets" not in raw else _path(raw["secrets"])
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise UserError(
            f"cannot read the Dataset {record.namespace}/{record.name} from {config}: {error}",
            hint="Name the origin yourself with origin= and origin_options=",
        ) from error
    parts = []
    for mount in dataset.spec.mounts:
        all_options = dict(mount.options)
        for option in mount.encrypt_options:
            path = secrets / option.secret_name / option.secret_key
            try:
                all_options[option.name] = path.read_text().rstrip("\n")
            except OSError as error:
                raise CredentialError(
                    f"cannot read the secret {option.secret_name}/{option.secret_key}: "
                    f"{error.strerror}",
                    hint="fallback=True needs the credentials at hand, or origin_options=",
                ) from error
        all_options.update(options)
        parts.append(_part(mount.path.strip("/"), mount.mount_point, all_options))
    return tuple(parts)


def _path(text: str) -> Path:
    from pathlib import Path

    return Path(text)


def _part(path: str, url: str, options: Mapping[str, Any]) -> Part:
    import fsspec

    try:
        fs, root = fsspec.core.url_to_fs(url, **options)
    except (ImportError, ValueError, TypeError) as error:
        raise UserError(
            f"fsspec cannot open the origin {url}: {error}",
            hint="Install its fsspec package, or check origin_options=",
        ) from error
    return Part(path, fs, root.rstrip("/"))
