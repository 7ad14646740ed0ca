"""Which mounts CONFIG asks for. Of CONFIG only that is read: the holder parses no Dataset."""

from __future__ import annotations

import json

from cache_worker.holder import mounting, records
from cacheop.api import mount_modes
from cacheop.api.errors import UserError


class Wanted:
    """A mount that is to be there as long as the holder runs."""

    __slots__ = ("mode", "target", "version")

    def __init__(self, target: str, mode: str, version: str) -> None:
        self.target = target
        """Resolved."""
        self.mode = mode
        """"" = the Dataset's."""
        self.version = version
        """"" = the Dataset's, or the current one."""


def read_wanted(config: str) -> tuple[str, list[Wanted]]:
    """(root, mounts) of CONFIG. Raises UserError."""
    try:
        with open(config, encoding="utf-8") as file:
            raw = json.load(file)
        found = [check(mount) for mount in raw.get("mounts", [])]
        root = str(raw["root"])
    except UserError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"cannot read the worker's configuration {config}: {error!r}",
            hint="It is written by `cacheop up`",
        ) from error
    targets = [wanted.target for wanted in found]
    for target in targets:
        if targets.count(target) > 1:
            raise UserError(
                f"two mounts at {target}", hint="Give each of the mounts a directory of its own"
            )
    return root, found


def check(raw: dict[str, object]) -> Wanted:
    """The mount that `raw` (of CONFIG, or a command) asks for. Raises UserError."""
    target, mode, version = raw.get("target"), raw.get("mode") or "", raw.get("version") or ""
    if not isinstance(target, str) or not target.startswith("/") or "\0" in target:
        raise UserError(f"cannot mount at {target!r}", hint="Name a directory by its full path")
    if mode not in ("", *mount_modes.WISHES):
        raise UserError(f"{mode!r} is no mode", hint=f"Known are {', '.join(mount_modes.WISHES)}")
    if not isinstance(version, str) or (version and not records.is_version(version)):
        raise UserError(f"{version!r} is no version", hint="`cacheop versions` lists them")
    return Wanted(mounting.resolve(target), str(mode), version)
