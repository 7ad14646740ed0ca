"""The origin of a Dataset as fsspec file systems, for reading without a worker."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cacheop.api.dataset import parse_dataset
from cacheop.api.errors import CredentialError, UserError
from cacheop.client.delegate import Part

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cacheop.local import RunRecord


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
